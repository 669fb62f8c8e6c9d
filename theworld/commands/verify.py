"""Re-read every shard against hashes and the manifest: python convert/verify.py OUT

Leaves with 0 if all is well, 1 if something is damaged, 2 if OUT is not a converted data set.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld.cli import Parser, run, say
from theworld.data.shards.verify import verify
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE


def main(argv: list[str]) -> int:
    parser = Parser("convert/verify.py", __doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of convert.out")
    result = verify(parser.parse(argv).out)
    for problem in result.problems:
        say(f"damaged: {problem}")
    verdict = f"{len(result.problems)} problems" if result.problems else "all as written"
    say(
        f"{result.generations} generations, {result.shards} shards, {result.samples:,} samples, "
        f"{result.bytes / 1e6:,.1f} MB: {verdict}"
    )
    return EXIT_BROKEN_PROMISE if result.problems else EXIT_DONE


command = partial(run, main)
