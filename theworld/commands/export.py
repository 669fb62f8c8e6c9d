"""A run to a model's folder: python recipes/export.py RUN OUT [--checkpoint NAME] [--merge] [--dtype bf16]

OUT is a folder that from_pretrained reads, with configuration and processor. Without --merge it holds only the weights
that the base models do not have, which are put on them when it is loaded, adapters as peft reads them; with --merge
all, as sharded safetensors, adapters added to their layers. A run without a world or adapters is written whole, as the
plain Gemma 3 that it is, which transformers alone loads. Of a run in stages it is the newest stage's model.
Exit code 0: written, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.errors import EXIT_DONE, UserError
from theworld.stage_folders import newest_run

DTYPES = ("fp32", "bf16", "fp16")


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/export.py", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's save_folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    parser.add_argument("--checkpoint", metavar="NAME", help="which checkpoint (default: the newest that is whole)")
    parser.add_argument("--merge", action="store_true", help="write all weights, those of the base models too")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the weights (default: as in the checkpoint)")
    given = parser.parse(argv)
    if not given.run.is_dir():
        raise UserError(f"{given.run}: no such folder")
    from theworld.inference.load_trained import DTYPES as NAMED
    from theworld.inference.write_model import export_run

    export_run(newest_run(given.run, saved=True), given.out, given.checkpoint, given.merge, NAMED.get(given.dtype))
    cli.say(str(given.out))
    return EXIT_DONE


command = partial(cli.run, main)
