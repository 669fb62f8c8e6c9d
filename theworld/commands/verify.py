"""Re-read every shard against hashes and the manifest: python convert/verify.py OUT [--source [IMAGES]]

With --source it also lists the samples whose picture is no longer the file that a conversion would take: it was
replaced, or a better one was found. IMAGES is the image folder, if it is not where it was at the conversion.

Leaves with 0 if all is well, 1 if something is damaged, 2 if OUT is not a converted data set.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld.cli import Parser, run, say
from theworld.data.shards.verify import verify
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE

KNOWN = ""
"""Stands for the folder of the conversion."""


def main(argv: list[str]) -> int:
    parser = Parser("convert/verify.py", __doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of convert.out")
    parser.add_argument("--source", metavar="IMAGES", nargs="?", const=KNOWN, help="list replaced pictures")
    options = parser.parse(argv)
    result = verify(options.out)
    for problem in result.problems:
        say(f"damaged: {problem}")
    verdict = f"{len(result.problems)} problems" if result.problems else "all as written"
    say(
        f"{result.generations} generations, {result.shards} shards, {result.samples:,} samples, "
        f"{result.bytes / 1e6:,.1f} MB: {verdict}"
    )
    if options.source is not None and not result.problems:
        print_comparison(options.out, options.source)
    return EXIT_BROKEN_PROMISE if result.problems else EXIT_DONE


def print_comparison(out: Path, source: str) -> None:
    """List the samples whose picture has been replaced."""
    from theworld.data.shards.compare_source import compare_source  # Streaming takes seconds to load

    found = compare_source(out, None if source == KNOWN else Path(source))
    for sample_id, path in found.replaced:
        say(f"replaced: {sample_id} {path}")
    say(f"source: {found.same:,} the same, {len(found.replaced):,} replaced, {found.gone:,} no longer there")
    if found.replaced:
        again = out.resolve().with_name(f"{out.resolve().name}-2")
        say(
            f"shards never change, so that a running pass stays whole: to have the new pictures convert all into a "
            f"new data set, convert.out={again}, and train on that"
        )


command = partial(run, main)
