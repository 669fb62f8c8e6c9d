"""In a temporary folder that all users share, nothing that somebody else has put there is taken for this user's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from streaming import Stream
from streaming.base.shared import prefix

from theworld.data.cache.attempt_folder import AttemptFolder
from theworld.data.cache.shard_cache import default_cache_folder, make_cache_folder
from theworld.data.cache.streaming_internals import attachments, make_lock_folder, open_shards, release_segments
from theworld.data.entries.hub_json import HubFile
from theworld.data.shards.dataset import DataSet
from theworld.data.shards.lock import exclusive_lock
from theworld.data.shards.remote_data_set import RemoteDataSet, staging_folder
from theworld.errors import UserError
from theworld.files import make_private
from theworld.model.tiny import tiny_folder

URL = "hf://datasets/OWNER/NAME/result.json"
OTHER_USER = 12345


def use_json(folder: Path) -> None:
    HubFile.from_url(URL, None)._downloaded()


def use_cache(folder: Path) -> None:
    make_cache_folder(folder, shared=False)


def use_staging(folder: Path) -> None:
    RemoteDataSet("s3://bucket/set", DataSet(folder)).pull()


def use_locks(folder: Path) -> None:
    make_lock_folder()


def use_tiny(folder: Path) -> None:
    tiny_folder()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared temporary folder of the test's own."""
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr("tempfile.tempdir", None)
    return shared


@pytest.fixture(params=["json", "cache", "staging", "locks", "tiny"])
def place(request: pytest.FixtureRequest, temporary: Path) -> tuple[Path, Callable[[Path], None]]:
    """A folder that this project makes there, and what uses it."""
    if request.param == "json":
        return HubFile.from_url(URL, None).folder, use_json
    if request.param == "cache":
        return default_cache_folder("s3://bucket/set"), use_cache
    if request.param == "staging":
        return staging_folder("s3://bucket/set"), use_staging
    if request.param == "locks":
        return temporary / f"theworld-locks-{os.geteuid()}", use_locks
    from theworld.model.tiny import _fingerprint

    return temporary / f"theworld-tiny-{_fingerprint()}-{os.geteuid()}", use_tiny


def test_a_planted_link_is_not_followed(place: tuple[Path, Callable[[Path], None]], tmp_path: Path) -> None:
    folder, use = place
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, so what is in it is not to be trusted"):
        use(folder)
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_another_users_folder_is_not_taken(place: tuple[Path, Callable[[Path], None]]) -> None:
    folder, use = place
    folder.mkdir()
    os.chown(folder, OTHER_USER, OTHER_USER)
    with pytest.raises(UserError, match=f"belongs to user {OTHER_USER}"):
        use(folder)


def test_a_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    make_private(tmp_path / "own")
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    (tmp_path / "own").chmod(0o755)
    make_private(tmp_path / "own")
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    (tmp_path / "own").chmod(0o777)
    with pytest.raises(UserError, match="may be written by every user"):
        make_private(tmp_path / "own")


def test_streamings_lock_files_lie_in_a_folder_of_this_users_own(temporary: Path, mds_sample: Path) -> None:
    """Links under every name that it may take in the shared folder lead to no file, and end no run."""
    victim = temporary.parent / "victim"
    planted = [temporary / f"{number:06}_{kind}_filelock" for number in range(40) for kind in ("barrier", "cache")]
    for name in planted:
        name.symlink_to(victim)
    shards = open_shards(streams=[Stream(local=str(mds_sample))], batch_size=1)
    assert len({sample["id"] for sample in shards}) == 26
    release_segments(shards)
    assert not victim.exists()
    own = temporary / f"theworld-locks-{os.geteuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert {path.name.partition("_")[2] for path in own.iterdir()} == {"barrier_filelock", "cache_filelock"}
    assert set(temporary.glob("*filelock")) == set(planted)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a segment to another user needs root")
def test_another_users_shared_memory_is_passed_over() -> None:
    """Streaming parses what is in the segment, unless it meets a PermissionError: then it goes to the next number."""
    planted = SharedMemory(create=True, size=16)
    try:
        os.chown(f"/dev/shm/{planted.name}", OTHER_USER, OTHER_USER)
        with attachments() as attached:
            with pytest.raises(PermissionError):
                prefix.SharedMemory(planted.name, False)  # pyright: ignore[reportPrivateImportUsage]
            assert not attached
    finally:
        planted.close()
        planted.unlink()


@pytest.fixture
def umask_of_a_group() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask_of_a_group")
def test_lock_files_of_a_group_can_be_locked_by_it(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock", "this"):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o664
    attempt = AttemptFolder(tmp_path / "cache")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    attempt.remove()
    assert set(modes.values()) == {0o664}, modes
