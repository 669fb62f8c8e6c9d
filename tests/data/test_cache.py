"""The node-local cache: never another data set's bytes, never more than the disk has, a line when it cannot work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.launcher import Script
from tests.helpers.loader import open_data, read_pass, smoke_on
from theworld.data.cache.shard_cache import SnapshotStream
from theworld.data.cache.space import make_room
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.train.data import RankCache, check_ranks


def shards_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("gen-*/*.mds"))


def raw_config(raw: Path, out: Path, *overrides: str) -> None:
    """Convert a raw folder."""
    config = smoke_on(
        out,
        None,
        f"convert.json={raw / 'openspatial.json'}",
        f"convert.images={raw / 'images'}",
        "convert.size_limit=100kb",
        *overrides,
    )
    convert(config.convert)


def images_of(cache: Path, mds: Path) -> dict[str, bytes]:
    """Picture by id, read through the cache."""
    data = open_data(smoke_on(mds, cache, "train_loader.num_workers=0"))
    pictures = {str(sample["id"]): sample["image"] for sample in (data.dataset.shards[i] for i in range(26))}
    data.close()
    return pictures


def test_another_data_set_written_to_the_same_place_is_not_read_from_the_cache(
    mds_sample: Path, tmp_path: Path
) -> None:
    """Shards of the same names and sizes, other bytes: a converter's run on retouched pictures."""
    remote, cache = tmp_path / "remote", tmp_path / "cache"
    shutil.copytree(mds_sample, remote)
    before = images_of(cache, remote)
    retouch(remote)
    after = images_of(cache, remote)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    assert len({path.stat().st_size for path in shards_in(cache)}) <= len(shards_in(remote))


def retouch(mds: Path) -> None:
    """Change a byte of every picture; sizes stay, hashes and fingerprints follow."""
    import hashlib

    from streaming.base.hashing import get_hash

    generation = mds / "gen-00000"
    index = json.loads((generation / "index.json").read_text())
    for shard in index["shards"]:
        path = generation / shard["raw_data"]["basename"]
        content = path.read_bytes()
        changed = content.replace(b"\xff\xd9", b"\xff\xd8")
        assert changed != content
        path.write_bytes(changed)
        shard["raw_data"]["hashes"] = {name: get_hash(name, changed) for name in shard["raw_data"]["hashes"]}
    (generation / "index.json").write_text(json.dumps(index))
    for shard in index["shards"]:
        shard["raw_data"]["basename"] = f"gen-00000/{shard['raw_data']['basename']}"
    (mds / "index.json").write_text(json.dumps(index))
    manifest = json.loads((mds / "manifest.json").read_text())
    manifest["generations"][0]["fingerprint"] = hashlib.sha256((generation / "index.json").read_bytes()).hexdigest()
    (mds / "manifest.json").write_text(json.dumps(manifest))


def test_two_data_sets_in_one_local_folder_keep_apart(mds_sample: Path, raw_sample: Path, tmp_path: Path) -> None:
    raw_config(raw_sample, tmp_path / "other", "convert.num_samples=20")
    cache = tmp_path / "cache"
    for remote, samples in ((mds_sample, 26), (tmp_path / "other", 20), (mds_sample, 26)):
        data = open_data(smoke_on(remote, cache))
        assert len(set(read_pass(data))) == samples
        data.close()
    assert len({path.parent.name for path in shards_in(cache)}) == 2


READER = """
import sys
from tests.helpers.loader import open_data, read_pass, smoke_on
data = open_data(smoke_on(sys.argv[1], None, "train_loader.num_workers=0"))
print(len(set(read_pass(data))))
data.close()
"""


@pytest.mark.slow
def test_two_processes_share_the_default_folder(
    mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one, a process of its own beside the first, takes the shards that the first has fetched."""

    def cached() -> dict[str, int]:
        return {
            str(path.relative_to(tmp_path)): path.stat().st_ino for path in tmp_path.glob("theworld-cache-*/gen-*/*")
        }

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = open_data(smoke_on(mds_sample, None, "train_loader.num_workers=0"))
    assert len(set(read_pass(data))) == 26
    fetched = cached()
    done = Script(READER, str(mds_sample)).end()
    data.close()
    assert done.stdout.strip() == "26", done.stderr
    assert len(fetched) == len(shards_in(mds_sample))
    assert cached() == fetched


def test_a_limit_holds_while_every_sample_is_read(mds_sample: Path, tmp_path: Path) -> None:
    sizes = sorted((path.stat().st_size for path in shards_in(mds_sample)), reverse=True)
    limit = sum(sizes[:4])
    data = open_data(smoke_on(mds_sample, tmp_path, f"train_loader.dataset.cache_limit={limit}"))
    assert len(set(read_pass(data))) == 26
    data.close()
    assert sum(path.stat().st_size for path in shards_in(tmp_path)) <= limit < sum(sizes)
    assert len(shards_in(mds_sample)) == len(sizes), "the data set itself is never touched"


def test_a_limit_below_a_few_shards_is_one_line(mds_sample: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cache_limit allows 0\.1 MB; raise it"):
        open_data(smoke_on(mds_sample, tmp_path, "train_loader.dataset.cache_limit=100kb"))


@pytest.fixture
def small_disk(tmp_path: Path, mds_sample: Path) -> Iterator[Path]:
    """A file system with room for about half of the sample."""
    total = sum(path.stat().st_size for path in shards_in(mds_sample))
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={total * 2 // 3}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_without_a_limit_the_cache_keeps_to_the_free_disk(mds_sample: Path, small_disk: Path) -> None:
    data = open_data(smoke_on(mds_sample, small_disk / "cache"))
    assert len(set(read_pass(data))) == 26
    data.close()
    assert 4 <= len(shards_in(small_disk / "cache")) < len(shards_in(mds_sample))


def test_a_disk_that_is_too_small_is_one_line(mds_sample: Path, small_disk: Path) -> None:
    with (small_disk / "blocker").open("wb") as blocker:
        free = shutil.disk_usage(small_disk).free
        blocker.write(bytes(free - 200_000))
    with pytest.raises(UserError, match=r"set TMPDIR or train_loader\.dataset\.local to a larger disk"):
        open_data(smoke_on(mds_sample, small_disk / "cache"))


def test_the_least_recently_asked_for_goes_first_and_other_files_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        shard = tmp_path / "gen-00000-abc" / f"{name}.mds"
        shard.parent.mkdir(exist_ok=True)
        shard.write_bytes(bytes(1000))
        os.utime(shard, (1000 - age, 1000 - age))
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "half.mds").write_bytes(bytes(5000))
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    make_room(tmp_path, needed=500, limit=2600)
    assert [path.name for path in shards_in(tmp_path)] == ["middle.mds", "new.mds"]
    assert (tmp_path / ".staging" / "half.mds").exists()
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_cannot_be_written_is_one_line(mds_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the cache of shards"):
        open_data(smoke_on(mds_sample, tmp_path / "file" / "cache"))


def test_ranks_of_a_node_must_agree_on_tmpdir() -> None:
    ranks = [
        RankCache(rank=0, node=0, temporary="/a", attempt="/a/x", fault=None),
        RankCache(rank=1, node=0, temporary="/a", attempt=None, fault=None),
        RankCache(rank=2, node=1, temporary="/b", attempt="/b/x", fault=None),
    ]
    check_ranks(ranks)
    ranks[1] = RankCache(rank=1, node=0, temporary="/c", attempt=None, fault=None)
    with pytest.raises(UserError, match="rank 0 has /a but rank 1 of the same node has /c"):
        check_ranks(ranks)


def test_a_tmpdir_too_long_for_sockets_is_one_line() -> None:
    """Else the loader's workers could not hand over a batch, and the run would wait for ever."""
    fits, too_long = "/" + "x" * 74, "/" + "x" * 75
    check_ranks([RankCache(rank=0, node=0, temporary=fits, attempt=None, fault=None)])
    with pytest.raises(UserError, match="set a shorter one"):
        check_ranks([RankCache(rank=0, node=0, temporary=too_long, attempt=None, fault=None)])


def test_a_fault_of_one_node_stops_all_ranks() -> None:
    ranks = [
        RankCache(rank=0, node=0, temporary="/a", attempt="/a/x", fault=None),
        RankCache(rank=1, node=1, temporary="/b", attempt=None, fault="cannot write the cache"),
    ]
    with pytest.raises(UserError, match="node 1: cannot write the cache"):
        check_ranks(ranks)


def test_a_data_set_read_in_place_that_lost_or_cut_a_shard_is_one_line(mds_sample: Path, tmp_path: Path) -> None:
    local = tmp_path / "mds"
    shutil.copytree(mds_sample, local)
    settings = ["train_loader.dataset.remote=null", f"train_loader.dataset.local={local}"]
    settings.append("train_loader.dataset.patience=0")
    victim = shards_in(local)[1]
    with victim.open("r+b") as shard:
        shard.truncate(1000)
    for expected in ("1000 bytes instead of", "the shard is missing"):
        data = open_data(smoke_on(local, None, *settings))
        with pytest.raises(UserError, match=expected) as raised:
            read_pass(data)
        assert "\n" not in str(raised.value)
        data.close()
        victim.unlink(missing_ok=True)


def test_a_small_cache_is_told_with_how_often_shards_will_be_fetched(
    mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sorted((path.stat().st_size for path in shards_in(mds_sample)), reverse=True)
    fetched: list[str] = []
    fetch = SnapshotStream._fetch_once

    def counted(self: SnapshotStream, original: dict[str, Any], final: Path) -> None:
        fetched.append(final.name)
        fetch(self, original, final)

    monkeypatch.setattr(SnapshotStream, "_fetch_once", counted)
    settings = ["train_loader.num_workers=0", "global_train_batch_size=1"]
    data = open_data(smoke_on(mds_sample, tmp_path, *settings, f"train_loader.dataset.cache_limit={sum(sizes[:4])}"))
    assert len(read_pass(data)) == 26
    data.close()
    told = re.search(r"the (\d+) shards of this node will be fetched ([\d.]+) times each", caplog.text)
    assert told is not None
    assert int(told[1]) == len(sizes) == len(set(fetched))
    assert float(told[2]) == pytest.approx(len(fetched) / len(sizes), rel=0.25)
    assert len(fetched) > 1.5 * len(sizes)


def test_a_cache_that_is_large_enough_is_not_mentioned(
    mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Smaller than the data set, but the window is smaller still."""
    sizes = sorted((path.stat().st_size for path in shards_in(mds_sample)), reverse=True)
    keys = {"cache_limit": sum(sizes[:5]), "shuffle_block_size": 1, "num_canonical_nodes": 1}
    data = open_data(smoke_on(mds_sample, tmp_path, *(f"train_loader.dataset.{key}={keys[key]}" for key in keys)))
    assert len(read_pass(data)) == 26
    data.close()
    assert "will be fetched" not in caplog.text
