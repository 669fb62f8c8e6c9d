"""Write the built-in sample: rendered scenes with true questions, in the exact format of OpenSpatialDataset.

With --captions the same pictures, each with a true sentence and no regions, for an alignment stage (docs/stages.md).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.cli import say
from theworld.errors import EXIT_DONE
from theworld.synthetic import generate


def _parser() -> cli.Parser:
    parser = cli.Parser("convert/sample.py", __doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for openspatial.json (captions.json) and images/")
    parser.add_argument("--samples", metavar="N", type=int, default=100, help="entries (default %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=17, help="same seed, same bytes (default %(default)s)")
    parser.add_argument(
        "--available",
        metavar="F",
        type=float,
        default=1.0,
        help="share of the images to write, as in a half-finished download; run again with a higher share to add "
        "the rest (default %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="PIXELS", type=int, default=1024, help="longest side of the images (default %(default)s)"
    )
    parser.add_argument("--captions", action="store_true", help="a caption for each picture, in captions.json")
    parser.add_argument("--workers", metavar="W", type=int, help="processes (default: one a core)")
    return parser


def main(argv: list[str]) -> int:
    """Generate the sample and say what is where."""
    options = _parser().parse(argv)
    done = generate(
        options.out, options.samples, options.seed, options.available, options.workers, options.size, options.captions
    )
    say(f"{done.json}: {done.samples} entries, {done.json_bytes / 1e6:.1f} MB")
    say(f"{done.images}: {done.available} images, {done.image_bytes / 1e6:.1f} MB ({done.written} written now)")
    return EXIT_DONE


command = partial(cli.run, main)
