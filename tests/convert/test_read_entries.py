"""The conversations file: every form it comes in, and every way it can be broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from raw_folder import entry

from theworld.data.entries import stream
from theworld.data.entries.check_entry import BadEntry, check_entry
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
        as_lines(ENTRIES).replace("\n", ""),
        "\n".join(json.dumps(one, indent=2) for one in ENTRIES),
        json.dumps({"version": 1, "info": {"by": ["me"]}, "data": ENTRIES}, indent=1),
        json.dumps(ENTRIES[:20]) + "\n" + json.dumps(ENTRIES[20:]),
    ],
    ids=[
        "one line",
        "pretty",
        "utf-8",
        "byte order mark",
        "lines",
        "blank lines",
        "no last newline",
        "no newline",
        "pretty objects",
        "under a key",
        "two lists",
    ],
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


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_reads_packed_files_and_says_when_one_is_cut(tmp_path: Path, suffix: str) -> None:
    pack = gzip.compress if suffix == "gz" else zstandard.compress
    packed = pack(json.dumps([entry(number) for number in range(3000)]).encode())
    path = tmp_path / f"entries.json.{suffix}"
    path.write_bytes(packed)
    assert [one["filename"] for one in read_entries(path)] == [entry(number)["filename"] for number in range(3000)]
    path.write_bytes(packed[: len(packed) * 4 // 5])
    good = []
    with pytest.raises(BrokenJson, match="cut short"):
        good.extend(read_entries(path))
    assert len(good) > 1000


def broken_at(path: Path) -> tuple[int, int]:
    """Entries that were given, and the offset in the message."""
    good: list[object] = []
    with pytest.raises(BrokenJson) as caught:
        good.extend(read_entries(path))
    assert f"at byte {caught.value.offset}" in str(caught.value)
    assert "\n" not in str(caught.value)
    return sum(isinstance(one, dict) for one in good), caught.value.offset


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
    assert good == 49
    assert abs(offset - place) <= 1


def test_damage_far_into_a_large_file_names_the_byte(tmp_path: Path) -> None:
    text = json.dumps([entry(number) for number in range(3000)]).encode()
    place = text.index(b'"bbox"', len(text) * 2 // 3)
    path = tmp_path / "entries.json"
    path.write_bytes(text[:place] + b"#" + text[place:])
    _, offset = broken_at(path)
    assert abs(offset - place) <= 1


@pytest.mark.parametrize(("content", "offset"), [(b"", 0), (b"  \n", 3), (b"\xff\xd8\xff", 0), (b"123", 0)])
def test_not_json_at_all(tmp_path: Path, content: bytes, offset: int) -> None:
    path = tmp_path / "entries"
    path.write_bytes(content)
    assert broken_at(path) == (0, offset)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>Not found</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (json.dumps(ENTRIES).encode("utf-16"), "UTF-16"),
        (json.dumps(ENTRIES).encode("utf-16-le"), "UTF-16"),
        (b"PK\x03\x04....", "zip"),
        (json.dumps([ENTRIES]).encode(), "list of lists"),
        (gzip.compress(b"<html>", mtime=0), "HTML"),
    ],
)
def test_another_kind_of_file_gets_its_own_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "entries.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        list(read_entries(path))
    assert "\n" not in str(caught.value)


def verdicts(path: Path) -> list[tuple[str, str]]:
    """Id and reason ("good" if there is none) of each item."""
    found = []
    items = read_entries(path)
    while True:
        try:
            check_entry(item := next(items), keep_masks=False)
            found.append((item["filename"], "good"))
        except BadEntry as bad:
            found.append((bad.id, bad.reason))
        except (StopIteration, BrokenJson):
            return found


NAME = entry(2)["filename"]
WHOLE = json.dumps(entry(2))
BOX = json.dumps(entry(2)["bbox"][0])
DEEP = "[" * 100_000 + "]" * 100_000
BAD_ITEMS = {
    "NaN in a box": (WHOLE.replace(BOX, "[NaN, 1, 2, 3]"), "a box is not four numbers"),
    "infinity under a key that nobody reads": (WHOLE.replace("{", '{"depth": -Infinity, ', 1), "good"),
    "400 digits": (WHOLE.replace(BOX, f"[{10**400}, 1, 2, 3]"), "a box is not four numbers"),
    "5,000 digits": (WHOLE.replace(BOX, f"[{'9' * 5000}, 1, 2, 3]"), "a box is not four numbers"),
    "5,000 digits under a key that nobody reads": (WHOLE.replace("{", '{"x": ' + "9" * 5000 + ", ", 1), "good"),
    "100,000 levels": (WHOLE.replace("{", '{"x": ' + DEEP + ", ", 1), "entry is nested too deeply"),
    "100,000 objects": (
        WHOLE.replace("{", '{"x": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + ", ", 1),
        "entry is nested too deeply",
    ),
    "half a character": (WHOLE.replace("What", "\\ud83d What"), "a text is not Unicode"),
    "bytes that are not UTF-8": (WHOLE.replace("What", "\udcfe What"), "a text is not Unicode"),
    "a word that JSON lacks": (WHOLE.replace(BOX, "[undefined, 1, 2, 3]"), "entry is not JSON"),
    "a quote that was lost": (WHOLE.replace('"conversations"', 'conversations"'), "entry is not JSON"),
    "a brace that was lost": (WHOLE[:-1], "entry is not JSON"),
    "an entry cut in its middle": (WHOLE[: len(WHOLE) // 2], "entry is not JSON"),
}
FORMS = {
    "list": lambda items: "[" + ", ".join(items) + "]",
    "pretty list": lambda items: "[\n  " + ",\n  ".join(items) + "\n]\n",
    "lines": lambda items: "\n".join(items) + "\n",
    "last line without newline": "\n".join,
    "under a key": lambda items: '{"data": [' + ",".join(items) + "]}",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", BAD_ITEMS)
def test_a_bad_item_gets_the_same_verdict_in_every_form_and_no_other_is_lost(
    tmp_path: Path, case: str, form: str
) -> None:
    item, verdict = BAD_ITEMS[case]
    others = [json.dumps(entry(number)) for number in (0, 1, 4, 5)]
    path = tmp_path / "entries"
    text = FORMS[form]([*others[:2], item, *others[2:]])
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    good = [(entry(number)["filename"], "good") for number in (0, 1, 4, 5)]
    assert verdicts(path) == [*good[:2], (NAME, verdict), *good[2:]]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_the_window_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(stream, "CHUNK", chunk)
    path = tmp_path / "entries"
    items = [json.dumps(one, ensure_ascii=False) for one in ENTRIES[:3]] + ["12345678", "-1.5e-3", "null", '"ü\\u00fc"']
    for form in ("list", "lines"):
        path.write_text(FORMS[form](items), encoding="utf-8")
        assert list(read_entries(path)) == [json.loads(item) for item in items]


def test_is_a_line_for_the_user(tmp_path: Path) -> None:
    assert issubclass(BrokenJson, UserError)
