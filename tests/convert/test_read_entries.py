"""The conversations file: every form it comes in, and every way it can be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raw_folder import entry

from theworld.data.entries.stream import BrokenJson, read_entries
from theworld.errors import UserError

ENTRIES = [entry(number) for number in range(50)]


def as_lines(entries: list[dict]) -> str:
    return "".join(json.dumps(one) + "\n" for one in entries)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ENTRIES),
        json.dumps(ENTRIES, indent=2),
        json.dumps(ENTRIES, ensure_ascii=False),
        "\ufeff \n" + json.dumps(ENTRIES),
        as_lines(ENTRIES),
        "\n" + as_lines(ENTRIES).replace("\n", "\r\n\n"),
        as_lines(ENTRIES).rstrip("\n"),
    ],
    ids=["one line", "pretty", "utf-8", "byte order mark", "lines", "blank lines", "no last newline"],
)
def test_reads_every_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "entries"
    path.write_text(text, encoding="utf-8", newline="")
    assert list(read_entries(path)) == ENTRIES


def test_whole_numbers_and_fractions_keep_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    path.write_text('[{"bbox": [[3, 3.0, 3.1503753662109375, -1e-3]]}]')
    (box,) = next(read_entries(path))["bbox"]
    assert [repr(value) for value in box] == ["3", "3.0", "3.1503753662109375", "-0.001"]


def broken_at(path: Path) -> tuple[int, int]:
    """Entries before the break, and the offset in the message."""
    good: list[object] = []
    with pytest.raises(BrokenJson) as caught:
        good.extend(read_entries(path))
    assert f"at byte {caught.value.offset}" in str(caught.value)
    assert "\n" not in str(caught.value)
    return len(good), caught.value.offset


@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_cut_file_gives_what_precedes_the_cut_and_the_offset(tmp_path: Path, form: str) -> None:
    text = json.dumps(ENTRIES) if form == "array" else as_lines(ENTRIES)
    whole = text.encode()
    cut = whole.index(b'"filename": "0000000000000014"') + 11
    path = tmp_path / "entries"
    path.write_bytes(whole[:cut])
    assert broken_at(path) == (20, cut)


@pytest.mark.parametrize("form", ["array", "pretty", "lines"])
@pytest.mark.parametrize("number", [0, 3, 49])
def test_damage_inside_names_the_byte(tmp_path: Path, form: str, number: int) -> None:
    indent = 1 if form == "pretty" else None
    text = as_lines(ENTRIES) if form == "lines" else json.dumps(ENTRIES, indent=indent)
    place = text.encode().index(b'"conversations"', text.index(ENTRIES[number]["filename"]))
    damaged = bytearray(text.encode())
    damaged[place] = ord("?")
    path = tmp_path / "entries"
    path.write_bytes(damaged)
    good, offset = broken_at(path)
    assert good == number
    assert abs(offset - place) <= 1


def test_damage_far_into_a_large_file_names_the_byte(tmp_path: Path) -> None:
    text = json.dumps([entry(number) for number in range(3000)]).encode()
    place = text.index(b'"bbox"', len(text) * 2 // 3)
    path = tmp_path / "entries.json"
    path.write_bytes(text[:place] + b"#" + text[place:])
    _, offset = broken_at(path)
    assert abs(offset - place) <= 1


@pytest.mark.parametrize(
    ("content", "offset"), [(b"", 0), (b"  \n", 3), (b"<html>Not found</html>", 0), (b"\xff\xd8\xff", 0), (b"123", 0)]
)
def test_not_json_at_all(tmp_path: Path, content: bytes, offset: int) -> None:
    path = tmp_path / "entries"
    path.write_bytes(content)
    assert broken_at(path) == (0, offset)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    text = json.dumps(ENTRIES).encode()
    place = text.index(b"What of", len(text) // 2)
    path = tmp_path / "entries.json"
    path.write_bytes(text[:place] + b"\xfe" + text[place:])
    _, offset = broken_at(path)
    assert abs(offset - place) <= 1


def test_lines_with_a_constant_that_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "entries.jsonl"
    path.write_text('{"bbox": []}\n{"bbox": [NaN]}\n')
    assert broken_at(path) == (1, 13)


def test_is_a_line_for_the_user(tmp_path: Path) -> None:
    assert issubclass(BrokenJson, UserError)
