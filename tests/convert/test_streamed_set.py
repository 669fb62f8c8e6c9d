"""Entries by the real ``datasets`` library in streaming: folders, tars, and a data set on a Hub over HTTP."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from shapes import Set, llava, picture

from tests.conftest import ROOT
from tests.helpers.data_set_hub import SHA, Served, served
from tests.helpers.extras import needs_extra
from theworld.data.entries.streamed_set import StreamedSet
from theworld.errors import UserError
from theworld.run_audit import configured_json

pytestmark = pytest.mark.slow
needs_datasets = needs_extra("datasets", "datasets")


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "conversations": llava("<image>\nWhat?", f"It is {number}."), **more}


def write_parquet(path: Path, count: int) -> None:
    rows = [entry(number, image={"bytes": picture(number), "path": f"{number}.jpg"}) for number in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)


def write_by_datasets(path: Path, count: int) -> None:
    """As ``push_to_hub`` does: the file says that the column holds pictures, and the library would decode them."""
    import datasets  # pyright: ignore[reportMissingImports] -- an extra; the linters run without it

    rows = [entry(number, image={"bytes": picture(number), "path": f"{number}.jpg"}) for number in range(count)]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(str(path))


def answers(made: Set) -> list[tuple[str, str]]:
    return sorted((one["id"], one["conversations"][1]["value"]) for one in made.samples())


def expected(count: int) -> list[tuple[str, str]]:
    return [(f"e{number}", f"It is {number}.") for number in range(count)]


@needs_datasets
def test_a_folder_of_parquet_files_with_pictures(tmp_path: Path) -> None:
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", 5)
    made = Set(tmp_path, [])
    result = made.convert(json=f"datasets:{tmp_path / 'hub'}", images=None)
    assert (result.format, answers(made)) == ("llava", expected(5))
    stored = {one["id"]: one["image"] for one in made.samples()}
    assert stored == {f"e{number}": picture(number) for number in range(5)}, "not decoded and encoded anew"
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", 7)
    made.convert(json=f"datasets:{tmp_path / 'hub'}", images=None)
    assert answers(made) == expected(7), "what has changed is read again"


@needs_datasets
def test_pictures_that_the_library_knows_as_such_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    write_by_datasets(tmp_path / "hub" / "train.parquet", 3)
    made = Set(tmp_path, [])
    made.convert(json=f"datasets:{tmp_path / 'hub'}", images=None)
    assert {one["id"]: one["image"] for one in made.samples()} == {f"e{number}": picture(number) for number in range(3)}


@needs_datasets
def test_tars_in_the_manner_of_webdataset(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with tarfile.open(tmp_path / "hub" / "train-0.tar", "w") as tar:
        for number in range(3):
            for name, content in ((f"{number}.jpg", picture(number)), (f"{number}.json", caption(number))):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = list(StreamedSet(str(tmp_path / "hub")).rows())
    assert [(row["jpg"]["bytes"], row["json"]["caption"]) for row in found] == [
        (picture(number), f"Picture {number}") for number in range(3)
    ]


def caption(number: int) -> bytes:
    return json.dumps({"caption": f"Picture {number}"}).encode()


@needs_datasets
def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    made = Set(tmp_path, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"datasets:.*empty") as error:
        made.convert(json=f"datasets:{tmp_path / 'empty'}", images=None)
    assert "\n" not in str(error.value)
    write_parquet(tmp_path / "hub" / "train.parquet", 2)
    with pytest.raises(UserError, match=r"(?i)split"):
        made.convert(json=f"datasets:{tmp_path / 'hub'}?split=validation", images=None)
    (tmp_path / "hub" / "train.parquet").write_bytes(b"PAR1, and no more")
    with pytest.raises(UserError, match="datasets:"):
        made.convert(json=f"datasets:{tmp_path / 'hub'}", images=None)


@pytest.mark.parametrize("url", ["datasets:", "datasets:a/b?splits=train", "datasets:a/b@", "datasets:a/b?split"])
def test_another_form_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"expected datasets:OWNER/NAME"):
        StreamedSet.from_url(url)


def test_an_audit_says_that_it_did_not_check_such_a_json() -> None:
    found = configured_json({"convert": {"json": "datasets:me/set"}})
    assert (found.ids, found.why_not) == (None, "datasets:me/set is not a file here")


def test_the_parts_of_the_form() -> None:
    assert StreamedSet.from_url("datasets:me/set@v2?name=small&split=test") == StreamedSet(
        "me/set", "small", "test", "v2"
    )


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Served]:
    with served() as made:
        commit(made, tmp_path / "data", SHA, 6)
        yield made


def commit(hub: Served, folder: Path, sha: str, count: int) -> None:
    """Let there be so many rows, in another commit."""
    write_parquet(folder / "train.parquet", count)
    hub.sha, hub.content = sha, (folder / "train.parquet").read_bytes()


def convert(tmp_path: Path, hub: Served, json_url: str) -> tuple[int, str]:
    """``convert/to_mds.py`` on a data set of this Hub: exit code and output."""
    ran = subprocess.run(
        [
            sys.executable,
            str(ROOT / "convert" / "to_mds.py"),
            str(ROOT / "yamls" / "smoke.yaml"),
            f"convert.json={json_url}",
            "convert.images=null",
            f"convert.out={tmp_path / 'mds'}",
            "convert.workers=1",
        ],
        env=hub.environment(tmp_path),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
    )
    return ran.returncode, ran.stdout


@needs_datasets
def test_a_data_set_of_the_hub_at_the_commit_of_its_revision(tmp_path: Path, hub: Served) -> None:
    def samples() -> int:
        code, said = convert(tmp_path, hub, "datasets:me/set@v2")
        assert code == 0, said
        return json.loads((tmp_path / "mds" / "manifest.json").read_text())["samples"]

    assert samples() == 6
    assert any(SHA in one for one in hub.asked)
    hub.asked.clear()
    assert samples() == 6
    assert not any("resolve" in one for one in hub.asked), "nothing has changed, and no row is read again"
    commit(hub, tmp_path / "data", "b" * 40, 9)
    assert samples() == 9, "the revision is another commit now"


@needs_datasets
def test_a_hub_that_says_no_or_nothing(tmp_path: Path, hub: Served) -> None:
    code, said = convert(tmp_path, hub, "datasets:me/other")
    assert (code, said.strip().splitlines()[-1][:43]) == (2, "error: convert.json: datasets:me/other: 404"), said
    code, said = convert(tmp_path, Served(endpoint="http://127.0.0.1:9"), "datasets:me/set")
    assert code == 75, said
    assert said.strip().endswith("; run again")
