"""What is in an unknown file of conversations: python convert/look.py FILE [--images FOLDER] [--entries N|all]

Reads a JSON array, JSON lines, an array under a key (plain, gzip or zstd), Parquet, or a folder of such files. Shows
the keys of its entries and what they hold, an example of each, which form they have, whether the converter reads it,
and how many of them it would take; with --images the share of the images that is there. The first 10,000 entries
unless --entries says otherwise. Changes nothing.
Exit code 0: shown, 2: it cannot be read, or not to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from theworld.cli import Parser, run, say
from theworld.data.entries.check_entry import image_id
from theworld.data.entries.look_at import SHAPES_SHOWN, Look, look_at, there_among
from theworld.data.entries.read_source import identity_of
from theworld.errors import EXIT_DONE, UserError


def main(argv: list[str]) -> int:
    parser = Parser("convert/look.py", __doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="the file")
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="where the images are")
    parser.add_argument("--entries", metavar="N|all", default="10000", help="how many to look at (default 10000)")
    given = parser.parse(argv)
    if given.entries != "all" and not (given.entries.isascii() and given.entries.isdigit() and int(given.entries)):
        raise UserError(f"--entries {given.entries}: expected a number above 0, or all")
    if given.images is not None and not given.images.is_dir():
        raise UserError(f"--images {given.images}: no such folder")
    found = look_at(given.file, None if given.entries == "all" else int(given.entries))
    say("\n".join(lines(given.file, found)))
    if given.images is not None:
        say(images_line(found, given.images))
    if found.fault is not None:
        raise UserError(found.fault)
    return EXIT_DONE


def lines(path: Path, found: Look) -> Iterator[str]:
    """The table of keys, and what may be made of it."""
    few = f"the first {found.entries:,} entries (--entries all: all)" if found.more else f"{found.entries:,} entries"
    size = identity_of(path)["bytes"]
    yield f"{path}: {size / 1e6:,.1f} MB; {few}"
    width = max([len(name) for name in found.keys], default=0)
    for name, key in found.keys.items():
        shapes = [shape for shape, _ in key.shapes.most_common(SHAPES_SHOWN)]
        more = f" or {len(key.shapes) - len(shapes)} others" if len(key.shapes) > len(shapes) else ""
        yield f"  {name:<{width}}  {percent(key.count, found.entries):>7}  {' or '.join(shapes)}{more}"
        yield f"  {'':<{width}}  {'':>7}  for example {key.example}"
    yield from verdict(found)


def verdict(found: Look) -> Iterator[str]:
    """Which form the entries have, and whether it can be converted."""
    for form, count in found.forms.most_common():
        said = (
            f"convert/to_mds.py reads it with convert.format={form}" if form else "convert/to_mds.py does not read it"
        )
        yield f"form: {form or 'none that is known'}, {percent(count, found.entries)}; {said}"
    if found.usable or found.refused:
        yield f"usable: {found.usable:,} of {found.usable + sum(found.refused.values()):,}"
        kinds = (("of several images", found.several), ("of text alone", found.text_alone))
        yield from (f"  {count:,} {kind}" for kind, count in kinds if count)
        yield from (f"  {count:,} not: {reason}" for reason, count in found.refused.most_common())


def images_line(found: Look, folder: Path) -> str:
    """The share of the images that is there."""
    if not found.images:
        return f"images: no entry names one; looked for in {folder}"
    stems = {image_id(name) for _, _, names in os.walk(folder) for name in names}
    there, outside = there_among(found.images, folder, stems)
    led = f"; {outside:,} names lead out of it and are not looked for" if outside else ""
    return f"images: {there:,} of {len(found.images):,} are in {folder} ({percent(there, len(found.images))}){led}"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"


command = partial(run, main)
