"""In a temporary folder that all users share, nothing that somebody else has put there is taken for this user's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from theworld.data.cache.attempt_folder import AttemptFolder
from theworld.data.cache.shard_cache import default_cache_folder, make_cache_folder
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


@pytest.fixture(params=["json", "cache", "staging", "tiny"])
def place(request: pytest.FixtureRequest, temporary: Path) -> tuple[Path, Callable[[Path], None]]:
    """A folder that this project makes there, and what uses it."""
    if request.param == "json":
        return HubFile.from_url(URL, None).folder, use_json
    if request.param == "cache":
        return default_cache_folder("s3://bucket/set"), use_cache
    if request.param == "staging":
        return staging_folder("s3://bucket/set"), use_staging
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
