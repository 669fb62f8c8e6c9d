"""A pass through the real loader: every sample once, through growth, resume and other rank counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import smoke_config
from tests.helpers.growing import arrive, config_on, flat
from tests.helpers.launcher import Script
from tests.helpers.loader import ids_of, open_data
from theworld.data.cache.snapshot import read_snapshot
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_processor


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_has_every_sample_once_and_the_next_is_another_order(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, workers: int
) -> None:
    config = smoke_config(
        raw_sample,
        mds_sample,
        f"train_loader.dataset.local={tmp_path}",
        "global_train_batch_size=4",
        f"train_loader.num_workers={workers}",
    )
    data = open_data(config)
    first = [ids_of(batch) for batch in data.spec.dataloader]
    second = [ids_of(batch) for batch in data.spec.dataloader]
    names = [entry["filename"] for entry in json.loads((raw_sample / "openspatial.json").read_text())]
    for batches in (first, second):
        assert sorted(flat(batches)) == sorted(names)
        assert [len(batch) for batch in batches] == [4] * 6 + [2]
    assert first != second
    data.close()


def test_growth_is_taken_up_when_the_known_samples_are_used_up(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path
) -> None:
    config = config_on(half_downloaded, tmp_path)
    convert(config.convert)
    data = open_data(config)
    batches = []
    for number, batch in enumerate(data.spec.dataloader):
        batches.append(ids_of(batch))
        if number == 1:
            arrive(raw_sample, half_downloaded, 17)
            convert(config.convert)
    # 10 known at first, 2 batches of 4; the other 2 are filled up with new ones rather than left in a short batch.
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 1]
    assert len(set(flat(batches))) == 17
    data.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_growth_that_is_wanted_is_mixed_with_what_is_left(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path, workers: int
) -> None:
    arrive(raw_sample, half_downloaded, 16)
    config = config_on(half_downloaded, tmp_path, f"train_loader.num_workers={workers}")
    convert(config.convert)
    data = open_data(config)
    old = {path.stem for path in (half_downloaded / "images").iterdir()}
    batches = []
    for number, batch in enumerate(data.spec.dataloader):
        batches.append(set(ids_of(batch)))
        if number == 0:
            data.dataset.growth_wanted = True  # there is nothing
        if number == 1:
            arrive(raw_sample, half_downloaded, 26)
            convert(config.convert)
            data.dataset.growth_wanted = True
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 4, 2]
    assert len(set.union(*batches)) == 26
    assert data.dataset.closed is not None
    assert len(data.dataset.closed.stages) == 2
    # Of the 18 samples after the second batch 8 are old ones: they do not come first.
    assert any(batch & old and batch - old for batch in batches[2:])
    assert batches[2] - old
    data.close()


def test_a_pass_that_had_ended_goes_on_with_what_is_new(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path
) -> None:
    config = config_on(half_downloaded, tmp_path, "train_loader.num_workers=0")
    convert(config.convert)
    data = open_data(config)
    seen = flat([ids_of(batch) for batch in data.spec.dataloader])
    state = json.loads(json.dumps(data.dataset.state_dict(0, True)))
    data.close()
    same = open_data(config)
    same.dataset.load_state_dict(state)
    assert same.dataset.reopen_pass() is None, "nothing new"
    same.close()

    arrive(raw_sample, half_downloaded, 17)
    convert(config.convert)
    grown = open_data(config)
    grown.dataset.load_state_dict(state)
    closed = grown.dataset.reopen_pass()
    assert closed is not None
    assert (closed.position, closed.batches) == (10, 3)
    more = [ids_of(batch) for batch in grown.spec.dataloader]
    assert [len(batch) for batch in more] == [4, 3]
    assert len(set(seen) | set(flat(more))) == 17
    assert grown.dataset.closed is not None
    assert (grown.dataset.closed.position, grown.dataset.closed.batches) == (17, 5)
    grown.close()


def test_resume_goes_on_exactly_with_growth_and_another_worker_count(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path
) -> None:
    config = config_on(half_downloaded, tmp_path)
    convert(config.convert)
    data = open_data(config)
    loader = iter(data.spec.dataloader)
    seen = [*ids_of(next(loader)), *ids_of(next(loader))]
    state = json.loads(json.dumps(data.dataset.state_dict(len(seen), True)))
    expected_rest = [ids_of(batch) for batch in loader]
    data.close()

    same = open_data(config_on(half_downloaded, tmp_path, "train_loader.num_workers=2"))
    same.dataset.load_state_dict(state)
    assert [ids_of(batch) for batch in same.spec.dataloader] == expected_rest
    same.close()

    arrive(raw_sample, half_downloaded, 26)
    convert(config.convert)
    grown = open_data(config)
    grown.dataset.load_state_dict(json.dumps(state))  # as a sharded checkpoint has it
    rest = flat([ids_of(batch) for batch in grown.spec.dataloader])
    assert len(rest) == 26 - 8
    assert len(set(seen) | set(rest)) == 26
    grown.close()


def test_a_lost_batch_is_given_again_once_at_the_end_also_after_a_resume(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path
) -> None:
    config = config_on(half_downloaded, tmp_path)
    convert(config.convert)
    data = open_data(config)
    loader = iter(data.spec.dataloader)
    lost = ids_of(next(loader))
    data.dataset.lose(4)
    assert not set(ids_of(next(loader))) & set(lost)
    state = json.loads(json.dumps(data.dataset.state_dict(8, True)))
    data.close()

    resumed = open_data(config)
    resumed.dataset.load_state_dict(state)
    batches = []
    for batch in resumed.spec.dataloader:
        batches.append(ids_of(batch))
        if len(batches) == 2:
            resumed.dataset.lose(14)  # what fails again stays lost
    assert [len(batch) for batch in batches] == [2, 4]
    assert sorted(batches[1]) == sorted(lost)
    resumed.close()


def test_another_data_set_than_the_checkpoints_is_refused(mds_sample: Path, raw_sample: Path, tmp_path: Path) -> None:
    config = smoke_config(raw_sample, mds_sample, f"train_loader.dataset.local={tmp_path}")
    data = open_data(config)
    state = data.dataset.state_dict(8, True)
    state["generations"][0]["fingerprint"] = "another"
    with pytest.raises(UserError, match="gen-00000 has changed"):
        data.dataset.load_state_dict(state)
    state["generations"] = [{"name": name, "fingerprint": "x", "samples": 1} for name in ("gen-00000", "gen-00001")]
    state["generations"][0] = data.dataset.snapshot.generations[0].state_dict()
    with pytest.raises(UserError, match="gen-00001 is missing"):
        data.dataset.load_state_dict(state)
    data.close()


def test_second_start_copies_nothing_and_a_damaged_shard_is_fetched_again(
    mds_sample: Path, raw_sample: Path, tmp_path: Path
) -> None:
    config = smoke_config(raw_sample, mds_sample, f"train_loader.dataset.local={tmp_path}")

    def run() -> dict[str, int]:
        data = open_data(config)
        assert len(flat([ids_of(batch) for batch in data.spec.dataloader])) == 26
        data.close()
        return {str(path.relative_to(tmp_path)): path.stat().st_ino for path in tmp_path.glob("gen-*/*.mds")}

    first = run()
    assert len(first) > 2
    assert run() == first
    victim = sorted(first)[0]
    with (tmp_path / victim).open("r+b") as shard:
        shard.truncate(1000)
        # While it is open no other file gets its inode.
        assert {name for name, inode in run().items() if first[name] != inode} == {victim}
    original = mds_sample / "gen-00000" / Path(victim).name
    assert (tmp_path / victim).read_bytes() == original.read_bytes()
    # Same size, another content: found by its hash.
    damaged = bytearray(original.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / victim).write_bytes(damaged)
    run()
    assert (tmp_path / victim).read_bytes() == original.read_bytes()


def test_a_shard_that_is_damaged_at_its_source_stops_with_one_line(
    mds_sample: Path, raw_sample: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(mds_sample, broken)
    shard = sorted(broken.glob("gen-*/*.mds"))[0]
    content = bytearray(shard.read_bytes())
    content[-10] ^= 255
    shard.write_bytes(content)
    settings = (f"train_loader.dataset.local={tmp_path / 'cache'}", "train_loader.dataset.patience=0")
    data = open_data(smoke_config(raw_sample, broken, *settings))
    with pytest.raises((UserError, RuntimeError), match=r"damaged where it lies, .* instead of "):
        list(data.spec.dataloader)
    data.close()


def test_default_cache_follows_from_the_remote_alone(
    mds_sample: Path, raw_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    config = smoke_config(raw_sample, mds_sample)
    for _ in range(2):
        data = open_data(config)
        next(iter(data.spec.dataloader))
        data.close()
    assert len(list(tmp_path.glob("theworld-cache-*"))) == 1
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    with pytest.raises(UserError, match="TMPDIR"):
        open_data(config)


def test_draw_bboxes_reaches_the_pictures_of_the_batches(mds_sample: Path, raw_sample: Path, tmp_path: Path) -> None:
    def pictures(draw: bool) -> dict[str, torch.Tensor]:
        cache = f"train_loader.dataset.local={tmp_path / 'cache'}"
        data = open_data(smoke_config(raw_sample, mds_sample, cache, f"train_loader.dataset.draw_bboxes={draw}"))
        found = {}
        for batch in data.spec.dataloader:
            found.update(zip(batch["sample_ids"], batch["world_pixel_values"], strict=True))
        data.close()
        return found

    drawn, plain = pictures(True), pictures(False)
    assert len(drawn) == len(plain) == 26
    processor = load_processor(smoke_config(raw_sample, mds_sample).model)
    for name, picture in plain.items():
        with Image.open(raw_sample / "images" / f"{name}.jpg") as image:
            original = processor.resize_images([image.convert("RGB")])["world_pixel_values"][0]
        assert torch.equal(picture, original)
        assert not torch.equal(drawn[name], original)


def test_snapshot_counts_only_what_manifest_and_index_both_know(mds_sample: Path, tmp_path: Path) -> None:
    shutil.copytree(mds_sample, tmp_path / "mds")
    manifest = json.loads((tmp_path / "mds" / "manifest.json").read_text())
    manifest["generations"].append({**manifest["generations"][0], "name": "gen-00001"})
    (tmp_path / "mds" / "manifest.json").write_text(json.dumps(manifest))
    assert read_snapshot(str(tmp_path / "mds")).samples == 26
    (tmp_path / "mds" / "manifest.json").unlink()
    assert read_snapshot(str(tmp_path / "mds")).samples == 26
    (tmp_path / "mds" / "index.json").unlink()
    with pytest.raises(UserError, match="to_mds"):
        read_snapshot(str(tmp_path / "mds"))


@pytest.mark.slow
def test_starts_beside_the_remains_of_a_killed_process(mds_sample: Path, raw_sample: Path, tmp_path: Path) -> None:
    """kill -9 leaves shared memory and lock files; with other temporary files gone Streaming refuses the folder."""
    script = (
        "import os, signal, sys; from tests.conftest import smoke_config; from tests.helpers.loader import open_data;"
        "from pathlib import Path; raw, mds, cache = sys.argv[1:];"
        "data = open_data(smoke_config(Path(raw), Path(mds), f'train_loader.dataset.local={cache}'));"
        "next(iter(data.spec.dataloader)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [str(raw_sample), str(mds_sample), str(tmp_path)]
    for temporary in ("a", "b"):
        (tmp_path / temporary).mkdir()
        environment = {**os.environ, "TMPDIR": str(tmp_path / temporary)}
        killed = Script(script, *arguments, environment=environment).end()
        assert killed.returncode == -9
    data = open_data(smoke_config(raw_sample, mds_sample, f"train_loader.dataset.local={tmp_path}"))
    assert len(flat([ids_of(batch) for batch in data.spec.dataloader])) == 26
    assert sum(path.is_dir() for path in (tmp_path / ".launches").iterdir()) == 1
    data.close()
    assert not list((tmp_path / ".launches").iterdir())


def test_growth_again_and_again_keeps_no_files_open(raw_sample: Path, half_downloaded: Path, tmp_path: Path) -> None:
    """Each growth opens the data set anew; what the old one held must be given back, not kept to the end, nor what
    Streaming looks into of the other jobs on the node."""
    config = config_on(half_downloaded, tmp_path, "train_loader.num_workers=0")
    convert(config.convert)
    others = [open_data(config) for _ in range(3)]
    data = open_data(config)
    open_files = []
    known = 10
    seen: list[str] = []
    for batch in data.spec.dataloader:
        seen += ids_of(batch)
        if known < 26 and len(seen) >= known - 4:
            known += 1
            arrive(raw_sample, half_downloaded, known)
            convert(config.convert)
        open_files.append(len(os.listdir("/proc/self/fd")))
    for opened in (data, *others):
        opened.close()
    assert len(set(seen)) == len(seen) == 26
    assert data.dataset.sources.times_opened >= 4
    assert max(open_files[2:]) - open_files[1] <= 12, open_files
