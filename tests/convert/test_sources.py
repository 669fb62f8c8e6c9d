"""What entries of other forms come in: JSON lines, packed files, folders, Parquet with pictures; faults of each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet
from shapes import PICTURE, Set, chat, llava, picture

from theworld.audit import JsonIds
from theworld.commands.status import command as status
from theworld.commands.verify import command as verify
from theworld.data.entries.check_entry import id_key
from theworld.data.entries.repeated_ids import MARK
from theworld.errors import UserError
from theworld.run_audit import configured_json


def entry(number: int) -> dict[str, Any]:
    return {"id": f"e{number}", "image": PICTURE, "conversations": llava("<image>\nWhat?", f"It is {number}.")}


def lines(entries: list[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in entries)


def rows(entries: list[Any]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(entries), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


FILES: dict[str, Callable[[list[Any]], bytes]] = {
    "some.json": lambda entries: json.dumps(entries, indent=1).encode(),
    "some.jsonl": lines,
    "some.json.gz": lambda entries: gzip.compress(json.dumps({"version": 2, "data": entries}).encode()),
    "some.jsonl.zst": lambda entries: zstandard.compress(lines(entries)),
    "in-a-row.json": lambda entries: b"".join(json.dumps(one).encode() for one in entries),
    "some.parquet": rows,
}


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_gives_the_same_samples(tmp_path: Path, name: str) -> None:
    made = Set(tmp_path, [], PICTURE)
    path = tmp_path / name
    path.write_bytes(FILES[name]([entry(number) for number in range(7)]))
    assert made.convert(json=str(path)).format == "llava"
    assert [(one["id"], one["conversations"][1]["value"]) for one in made.samples()] == [
        (f"e{number}", f"It is {number}.") for number in range(7)
    ]


def test_a_folder_of_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    made = Set(tmp_path, [], PICTURE)
    folder = tmp_path / "sets"
    (folder / "b").mkdir(parents=True)
    for number, (name, encode) in enumerate(FILES.items()):
        (folder / ("b" if number % 2 else ".") / name).write_bytes(encode([entry(number)]))
    (folder / ".hidden.json").write_text("[")
    (folder / "README.md").write_text("[")
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".gz", ".zst", ".parquet"))
    found.remove(folder / ".hidden.json")
    expected = [f"e{list(FILES).index(path.name)}" for path in found]
    assert made.convert(json=str(folder)).written == len(FILES)
    assert made.ids() == expected
    (folder / "more.jsonl").write_bytes(lines([entry(90), entry(0)]))
    report = made.convert(json=str(folder))
    assert (report.entries, report.written) == (len(FILES) + 2, 2)
    assert set(made.ids()[-2:]) == {"e90", f"e0{MARK}2"}


def test_a_broken_file_of_a_folder_costs_what_is_behind_its_fault(tmp_path: Path) -> None:
    made = Set(tmp_path, [], PICTURE)
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "a.json").write_bytes(json.dumps([entry(0), entry(1)]).encode()[:-30])
    (folder / "b.jsonl").write_bytes(lines([entry(2)]))
    report = made.convert(json=str(folder))
    assert made.ids() == ["e0", "e2"]
    assert f"{folder / 'a.json'}: cut short" in str(report.broken)


def test_a_folder_without_entries_and_a_parquet_that_is_none(tmp_path: Path) -> None:
    made = Set(tmp_path, [], PICTURE)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"convert\.json: .*none: no file in it that ends with \.json, \.jsonl"):
        made.convert(json=str(tmp_path / "none"))
    (tmp_path / "bad.parquet").write_bytes(rows([entry(0)])[:-9])
    with pytest.raises(UserError, match=r"bad\.parquet: cut short or no Parquet file"):
        made.convert(json=str(tmp_path / "bad.parquet"))


ODD: dict[str, tuple[list[Any], dict[str, int]]] = {
    "a text that is no Unicode": (
        [{**entry(1), "conversations": llava("?", "half \ud83d")}],
        {"a text is not Unicode": 1},
    ),
    "a number of 400 digits": (
        [{**entry(1), "conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, 10**400]]}],
        {"a box is not four numbers": 1},
    ),
    "an item that is no object": ([7, None], {"entry is not an object": 2}),
    "1600 turns": ([{**entry(1), "conversations": llava(*["Q?", "A."] * 800)}], {}),
    "a world token in an answer": ([{**entry(1), "conversations": llava("?", "<start_of_world>")}], {}),
}


@pytest.mark.parametrize("name", ["some.json", "some.jsonl", "some.jsonl.zst", "in-a-row.json"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_entries_cost_themselves_in_each_kind_of_file(tmp_path: Path, name: str, kind: str) -> None:
    odd, left_out = ODD[kind]
    made = Set(tmp_path, [], PICTURE)
    path = tmp_path / name
    path.write_bytes(FILES[name]([entry(0), *odd, entry(9)]))
    report = made.convert(json=str(path))
    assert +report.left_out == left_out
    assert {"e0", "e9"} <= set(made.ids())
    assert len(made.ids()) == 2 + (0 if left_out else len(odd))
    assert report.broken is None


@pytest.mark.parametrize(
    "damaged", [b'{"image": "a/b.jpg", "conversations": nul}', b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_a_line_that_cannot_be_parsed_costs_itself(tmp_path: Path, damaged: bytes) -> None:
    made = Set(tmp_path, [], PICTURE)
    path = tmp_path / "some.jsonl"
    path.write_bytes(lines([entry(0)]) + damaged + b"\n" + lines([entry(9)]))
    report = made.convert(json=str(path))
    assert made.ids() == ["e0", "e9"]
    assert sum(report.left_out.values()) == 1


def test_messages_with_boxes_in_a_row_are_entries_and_no_list_around_them(tmp_path: Path) -> None:
    """An object whose first key holds a list of objects looks like a wrapper."""
    entries = [{"messages": chat("Is <mask> near?", "Yes."), "image": PICTURE, "bbox": [[1, 2, 30, 40]]}] * 2
    made = Set(tmp_path, [], PICTURE)
    path = tmp_path / "some.jsonl"
    path.write_bytes(lines(entries))
    assert made.convert(json=str(path)).written == 2


# -- pictures inside of entries


def with_pictures(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "images": [{"bytes": picture(number, "PNG" if number % 2 else "JPEG"), "path": None}],
            "messages": chat("<image>What?", f"It is {number}."),
        }
        for number in range(count)
    ]


def test_pictures_in_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [*with_pictures(5), {**with_pictures(1)[0], "id": "again"}]
    path = tmp_path / "some.parquet"
    path.write_bytes(rows([{**one, "id": str(one["id"])} for one in entries]))
    made = Set(tmp_path / "set", [])
    assert made.convert(json=str(path), images=None, num_samples=4).written == 4
    report = made.convert(json=str(path), images=None)
    assert (report.format, report.written, +report.left_out) == ("messages", 2, {})
    samples = made.samples()
    assert [sample["id"] for sample in samples] == ["0", "1", "2", "3", "4", "again"]
    assert [sample["image"] for sample in samples] == [one["images"][0]["bytes"] for one in entries]
    assert len([one for one in (made.out / ".convert" / "pictures").rglob("*") if one.is_file()]) == 5
    assert made.convert(json=str(path), images=None).written == 0
    assert verify([str(made.out), "--source"]) == 0
    assert "source: 6 the same, 0 replaced, 0 no longer there" in capsys.readouterr().out


def test_one_picture_as_bytes_and_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    path.write_bytes(rows([{"image": picture(3), "caption": "Grey."}, {"image": picture(4), "caption": "Grey."}]))
    made = Set(tmp_path / "set", [])
    assert made.convert(json=str(path), images=None).written == 2
    assert [sample["id"] for sample in made.samples()] == [sample["about"]["image"][:-4] for sample in made.samples()]


def test_pictures_that_cannot_be_taken(tmp_path: Path) -> None:
    good = with_pictures(1)[0]
    gif = {**good, "images": [{"bytes": b"GIF89a", "path": None}]}
    half = {**good, "images": [{"bytes": picture()[:99], "path": None}]}
    none: dict[str, Any] = {**good, "images": []}
    two = {**good, "images": good["images"] * 2}
    path = tmp_path / "some.parquet"
    path.write_bytes(rows([{**one, "id": str(number)} for number, one in enumerate([good, gif, half, none, two])]))
    made = Set(tmp_path / "set", [])
    report = made.convert(json=str(path), images=None)
    assert made.ids() == ["0", "4"]
    assert +report.left_out == {
        "entry's picture is of a kind that is not read": 1,
        "image is cut short": 1,
        "entry names no image": 1,
    }
    with pytest.raises(UserError, match=r"4 x entry holds its picture itself, .*: convert\.images=null takes it from"):
        Set(tmp_path / "other", [], PICTURE).convert(json=str(path))


def test_openspatial_has_its_images_in_a_folder(tmp_path: Path) -> None:
    made = Set(tmp_path, [{"filename": "a", "conversations": llava("?", "!"), "bbox": []}])
    with pytest.raises(UserError, match=r"convert\.images is not set; entries of format openspatial have"):
        made.convert(images=None)


# -- what else reads a data set of another form


def test_the_status_of_such_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Set(tmp_path, [{**entry(number), "image": f"{number // 2}.jpg"} for number in range(6)], "0.jpg")
    made.convert()
    made.add("1.jpg", picture())
    given = [
        f"convert.{key}={value}" for key, value in (("json", made.json), ("images", made.images), ("out", made.out))
    ]
    assert status(["yamls/smoke.yaml", *given]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "6 entries, 6 usable" in shown
    assert "converted 2 in 1 generations" in shown
    assert "conversion 1 images" in shown


def test_the_ids_that_a_json_of_another_form_names(tmp_path: Path) -> None:
    """What an audit holds a run against: the samples' own names, and those that cannot become samples."""
    entries = [entry(0), {**entry(1), "id": "e0"}, {**entry(2), "image": ["a/b.jpg", "c.jpg"]}, entry(3)]
    made = Set(tmp_path, [*entries, {"conversations": llava("?", "!"), "image": PICTURE}], PICTURE)
    made.convert()
    assert made.ids() == ["e0", "e0#2", "e3", "a/b"]

    def named(**convert: Any) -> JsonIds:
        return configured_json({"convert": {"json": str(made.json), **convert}})

    for form in ("auto", "llava"):
        assert list(named(format=form).ids or ()) == ["e0", "e0#2", "e2", "e3", "a/b"]
    held_out = set(named(format="auto").ids or ()) - set(named(format="auto", holdout=0.5).ids or ())
    assert held_out == {name for name in ("e0", "e0#2", "e2", "e3", "a/b") if id_key(name) < 2**63}
    own = named(format="mine:read")
    assert (own.ids, own.why_not) == (None, "convert.format is code of your own, mine:read, which no audit runs")
