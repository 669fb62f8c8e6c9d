"""Re-read every shard against hashes and the manifest: python convert/verify.py OUT

Leaves with 0 if all is well, 1 if something is damaged, 2 if OUT is not a converted data set.
"""

from __future__ import annotations

import sys
from pathlib import Path

from theworld.cli import run
from theworld.data.shards.verify import verify
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, UserError


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return EXIT_DONE
    if len(argv) != 1:
        raise UserError("expected one argument, the folder of convert.out")
    result = verify(Path(argv[0]))
    for problem in result.problems:
        print(f"damaged: {problem}")
    verdict = f"{len(result.problems)} problems" if result.problems else "all as written"
    print(
        f"{result.generations} generations, {result.shards} shards, {result.samples:,} samples, "
        f"{result.bytes / 1e6:,.1f} MB: {verdict}"
    )
    return EXIT_BROKEN_PROMISE if result.problems else EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
