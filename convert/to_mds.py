"""Raw files to MDS: python convert/to_mds.py [YAML] [key=value ...]; the keys are in the section convert."""

from __future__ import annotations

import sys
from dataclasses import fields

from theworld.cli import run
from theworld.config.load import load_config
from theworld.config.schema import ConvertConfig
from theworld.data.shards.convert import convert
from theworld.errors import EXIT_DONE, UserError


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        print("Keys:", ", ".join(f"convert.{field.name}" for field in fields(ConvertConfig)))
        print("What each means: theworld/config/schema.py")
        return EXIT_DONE
    report = convert(load_config(argv).convert)
    print(report.table())
    if report.broken:
        raise UserError(report.broken)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
