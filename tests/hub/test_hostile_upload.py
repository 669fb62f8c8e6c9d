"""Each file of a real upload, changed by a stranger: nothing runs or is written elsewhere, the answer is a line."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_double import HubDouble
from hub_run import REPO
from huggingface_hub import HfApi
from PIL import Image

from tests.conftest import smoke_config
from theworld.config.hub_url import Place
from theworld.errors import UserError
from theworld.hub.export import Snapshot, export
from theworld.hub.resume import fetch_checkpoint
from theworld.inference.answering import Answerer, Asked
from theworld.inference.load_trained import load_trained
from theworld.train.run import train

Client = Callable[[], HfApi]
Files = dict[str, bytes]
STATE = "resume/state.json"
CODE = "__import__('pathlib').Path({ran!r}).touch()"
DEPTH = 20_000


@pytest.fixture(scope="module")
def upload(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("upload")
    snapshot = Snapshot.take(finished_run, finished_run / "ep0-ba2-rank0.pt", folder / "snapshot")
    export(snapshot, folder / "out", REPO)
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    return {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in files}


def odd_values(ran: Path) -> list[Any]:
    code = CODE.format(ran=str(ran))
    tensor, pairs = {"~": "tensor", "v": "t000000"}, {"~": "dict", "v": [[[1], 2]]}
    return [None, 7, -1, 1e999, "", code, "../../outside", [], {}, [[[]]], {"repr": code}, tensor, pairs]


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document, containers included."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def with_value(document: bytes, place: tuple[Any, ...], value: Any) -> bytes:
    tree = json.loads(document)
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(tree).encode()


def signed(files: Files) -> Files:
    """With sizes and hashes of the changed files, as a stranger would write them."""
    description = json.loads(files[STATE])
    for name in description["files"]:
        content = files[name]
        description["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**files, STATE: json.dumps(description).encode()}


def changed_files(files: Files, ran: Path, chance: random.Random) -> Iterator[Files]:
    """Other kinds of content for each file that a resume takes."""
    code = CODE.format(ran=str(ran)).encode()
    odd = json.dumps({"launch": code.decode(), "batch": [], "ids": {}}).encode()
    for name in json.loads(files[STATE])["files"]:
        content = files[name]
        cut = content[: chance.randrange(len(content))]
        flipped = bytearray(content)
        flipped[chance.randrange(min(len(content), 400))] ^= 0xFF
        for other in (b"", b"\x00" * 64, cut, bytes(flipped), code + b"\n", b"[" * DEPTH + b"\n", odd + b"\n", b"7\n"):
            yield signed({**files, name: other})


def changed_state(files: Files, ran: Path, chance: random.Random, count: int) -> Iterator[Files]:
    places = list(leaves(json.loads(files[STATE])))
    shallow = [place for place in places if len(place) <= 3]
    for place in [*chance.sample(shallow, min(count, len(shallow))), *chance.sample(places, count)]:
        yield {**files, STATE: with_value(files[STATE], place, chance.choice(odd_values(ran)))}
    for name in ("../../outside", "resume/../../../outside", "/tmp/outside", "resume/ledger/rank0.jsonl/x", "x.py"):
        yield {**files, name: b"x", STATE: with_value(files[STATE], ("files", name), {"bytes": 1, "sha256": "0"})}
    yield {**files, STATE: b"[" * DEPTH}


def everything_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def fetch(hub: HubDouble, client: Client, files: Files, run: Path, lines: list[str]) -> Path | None:
    """The checkpoint, or None where the answer is a line, which goes to ``lines``."""
    hub.repos.clear()
    hub.add_repo(REPO)
    hub.add_commit(REPO, "changed", files)
    run.mkdir(parents=True)
    try:
        return fetch_checkpoint(Place(REPO), run, False, False, client())
    except UserError as error:
        lines.append(str(error))
        return None


def changed_model(files: Files, ran: Path, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """A file of the model, of its processor or tokenizer, and what a stranger may have made of it."""
    code = CODE.format(ran=str(ran))
    for name in sorted(name for name in files if "/" not in name and name.endswith((".json", ".jinja"))):
        content = files[name]
        for other in (b"[" * DEPTH, b"7", content[: len(content) // 2]):
            yield name, other
        if name.endswith(".json"):
            places = [place for place in leaves(json.loads(content)) if len(place) <= 3]
            for place in chance.sample(places, min(3, len(places))):
                yield name, with_value(content, place, chance.choice(odd_values(ran)))
    yield "chat_template.jinja", b"{{ cycler.__init__.__globals__." + code.encode() + b" }}"
    yield "chat_template.jinja", b"{% for i in range(999999999) %}x{% endfor %}"
    remote = json.loads(files["config.json"]) | {"auto_map": {"AutoConfig": "own_code.Run"}}
    yield "config.json", json.dumps(remote).encode()


@pytest.mark.slow
def test_a_model_of_changed_files_can_be_asked_or_is_a_line(upload: Files, tmp_path: Path) -> None:
    ran, folder, lines = tmp_path / "ran", tmp_path / "model", []
    question = Asked((Image.new("RGB", (64, 64)),), "What is it?")
    folder.mkdir()
    changes = list(changed_model(upload, ran, random.Random(3)))
    for name, other in changes:
        for path, content in {**upload, name: other}.items():
            if "/" not in path:
                (folder / path).write_bytes(content)
        (folder / "own_code.py").write_text(CODE.format(ran=str(ran)), encoding="utf-8")
        try:
            Answerer(load_trained(str(folder)), max_new_tokens=2).answer([question])
        except UserError as error:
            lines.append(str(error))
    print(f"{len(changes)} changed models: {len(lines)} are a line")
    assert len(lines) > len(changes) / 3
    assert not any("\n" in line for line in lines)
    assert not ran.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


@pytest.mark.slow
def test_no_change_of_an_upload_does_anything_but_a_line(
    hub: HubDouble,
    client: Client,
    upload: Files,
    raw_sample: Path,
    mds_sample: Path,
    tmp_path: Path,
) -> None:
    """What is still a checkpoint after the change is trained on from there; some of those, as it takes seconds each."""
    logging.getLogger("theworld.hub").setLevel(logging.ERROR)
    ran, area, chance = tmp_path / "ran", tmp_path / "area", random.Random(5)
    mutants = [*changed_files(upload, ran, chance), *changed_state(upload, ran, chance, 30)]
    survivors: list[Path] = []
    lines: list[str] = []
    for number, files in enumerate(mutants):
        place = area / str(number)
        checkpoint = fetch(hub, client, files, place / "run", lines)
        assert everything_in(place) <= {"run"} | {f"run/{name}" for name in everything_in(place / "run")}
        left = {name for name in everything_in(place / "run") if not name.startswith((".hub", "ledger", "launches"))}
        assert left <= {"ep0-ba2-rank0.pt"}
        if checkpoint is not None:
            survivors.append(place / "run")
    print(f"{len(mutants)} changed uploads: {len(lines)} are a line, {len(survivors)} still a checkpoint")
    assert not ran.exists()
    assert 0 < len(survivors) < len(mutants) / 2
    for run in chance.sample(survivors, min(3, len(survivors))):
        lines += resume(run, raw_sample, mds_sample)
    assert not any("\n" in line for line in lines)
    assert not ran.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"area"}


def resume(run: Path, raw: Path, mds: Path) -> list[str]:
    """Go on from what is in a save folder; the line, if it ended with one."""
    config = smoke_config(
        raw,
        mds,
        f"save_folder={run}",
        f"train_loader.dataset.local={run.parents[2] / 'area' / 'cache'}",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "train_loader.num_workers=0",
        "model.freeze.language=true",
        "max_duration=3ba",
    )
    try:
        train(config)
    except UserError as error:
        return [str(error)]
    return []
