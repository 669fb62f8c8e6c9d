"""Look at a data set's samples: python convert/preview.py OUT [--samples N] [--id ID ...] [--where KIND] [--html FILE]

Writes one page that needs nothing else: pictures as the model sees them with their regions, the conversation, what of
it is trained on, the source entry, warnings. KIND is truncated (answers beyond max_seq_len), irregular (something was
left out) or rejected (entries that never became samples). --yaml names the model, for tokens and what is cut.
Exit code 0: written, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from theworld.cli import Parser, run, say
from theworld.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from theworld.data.batches.sample_encoder import SampleEncoder

KINDS = ("truncated", "rejected", "irregular")
MOST = 2000


def main(argv: list[str]) -> int:
    parser = Parser("convert/preview.py", __doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of convert.out")
    parser.add_argument("--samples", metavar="N", type=int, default=24, help="how many (default 24)")
    parser.add_argument("--id", metavar="ID", action="append", default=[], help="this sample; may be given again")
    parser.add_argument("--where", choices=KINDS, help="only such samples")
    parser.add_argument("--seed", metavar="N", type=int, default=17, help="of the choice (default 17)")
    parser.add_argument("--yaml", metavar="YAML", help="model, max_seq_len and draw_bboxes, as it is trained")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, default=Path("preview.html"), help="(default preview.html)"
    )
    given = parser.parse(argv)
    if not 1 <= given.samples <= MOST:
        raise UserError(f"--samples {given.samples}: expected 1 to {MOST}; a page holds the pictures")
    if given.id and given.where:
        raise UserError("--id and --where: give one of them")
    from theworld.pages.page_file import write_page
    from theworld.pages.preview_page import Wanted, preview

    encoder, draws = (None, True) if given.yaml is None else encoder_of(given.yaml)
    page = preview(given.out, Wanted(given.samples, given.id, given.where, given.seed), encoder, draws)
    write_page(given.html, page)
    say(f"{given.html.resolve().as_uri()}")
    return EXIT_DONE


def encoder_of(yaml: str) -> tuple[SampleEncoder, bool]:
    """What makes tokens of samples in training with this YAML, and whether boxes are drawn."""
    from theworld.config.load import load_config
    from theworld.data.batches.sample_encoder import SampleEncoder
    from theworld.model.build import load_processor

    config = load_config([yaml])
    dataset = config.train_loader.dataset
    return SampleEncoder(load_processor(config.model), dataset.max_seq_len), dataset.draw_bboxes


command = partial(run, main)
