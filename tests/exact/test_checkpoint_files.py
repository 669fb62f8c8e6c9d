"""Which checkpoint a resume takes, whatever lies beside it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import save  # pyright: ignore[reportPrivateImportUsage]

from theworld.audit.claim import newest_claim
from theworld.checkpoint import on_disk
from theworld.checkpoint.on_disk import is_whole, newest_start_saved, newest_whole_checkpoint
from theworld.checkpoint.pass_proof import PROOF, RunProof
from theworld.checkpoint.saver import point_latest
from theworld.errors import NotNow


def write(folder: Path, batch: int, epoch: int = 0, *, starts: dict[int, int] | None = None) -> Path:
    """A checkpoint of some 100 kB, as torch writes it.

    Args:
        starts: its lineage, start of the run to the batch at which that began; None: no proof in it.
    """
    path = folder / f"ep{epoch}-ba{batch}-rank0.pt"
    torch.save({"state": state_of(batch, starts)}, path)
    return path


def write_sharded(folder: Path, batch: int, starts: dict[int, int]) -> Path:
    """The same in the form of sharded FSDP."""
    path = folder / f"ep0-ba{batch}"
    save({"state": state_of(batch, starts)}, checkpoint_id=path, no_dist=True)
    return path


def state_of(batch: int, starts: dict[int, int] | None) -> dict[str, Any]:
    state: dict[str, Any] = {"weights": torch.arange(20_000.0) + batch, "batch": batch}
    if starts is not None:
        proof = RunProof()
        for start, first in starts.items():
            proof.begin_attempt(start, first, ranks=1)
            proof.advance(batch, [], [])
        state[PROOF] = proof.text()
    return state


def test_newest_by_batch_then_epoch_and_not_by_name(tmp_path: Path) -> None:
    for batch in (5, 9, 10):
        write(tmp_path, batch)
    last = write(tmp_path, 10, epoch=1)
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert (found.path, found.batch, found.epoch) == (last, 10, 1)


@pytest.mark.parametrize("writer", [write, write_sharded])
def test_a_checkpoint_of_an_abandoned_future_never_wins(tmp_path: Path, writer: Callable[..., Path]) -> None:
    """The second start went on from batch 4, though the first had come further; all were kept."""
    for batch in (2, 4, 6, 8):
        writer(tmp_path, batch, starts={1: 0})
    assert newest_batch(tmp_path) == 8
    writer(tmp_path, 5, starts={1: 0, 2: 4})
    assert newest_batch(tmp_path) == 5
    assert newest_start_saved(tmp_path) == 2
    claim = newest_claim(tmp_path)
    assert claim is not None
    assert claim.batches == 5
    last = writer(tmp_path, 6, starts={1: 0, 2: 4})
    assert newest_batch(tmp_path) == 6
    (last / ".metadata" if last.is_dir() else last).write_bytes(b"")
    assert newest_batch(tmp_path) == 5


@pytest.mark.parametrize("nonsense", ["[" * 100_000, '1, "passes": [{"lineage": [["x", 0, 1, 1]]}]}'])
def test_a_proof_of_another_form_is_passed_over_by_trainer_and_audit(tmp_path: Path, nonsense: str) -> None:
    write(tmp_path, 4, starts={1: 0})
    odd = {**state_of(6, None), PROOF: f'{{"{PROOF}": {nonsense}'}
    torch.save({"state": odd}, tmp_path / "ep0-ba6-rank0.pt")
    assert newest_start_saved(tmp_path) == 1
    assert newest_batch(tmp_path) == 4
    claim = newest_claim(tmp_path)
    assert claim is not None
    assert claim.batches == 4


def newest_batch(folder: Path) -> int:
    found = newest_whole_checkpoint(folder)
    assert found is not None
    return found.batch


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path) is None
    assert newest_whole_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.98, 0.9999])
def test_a_file_cut_anywhere_is_passed_over_and_named(
    tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    good, cut = write(tmp_path, 5), write(tmp_path, 10)
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * kept)])
    with caplog.at_level(logging.WARNING):
        found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good
    assert str(cut) in caplog.text


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_byte_is_found(tmp_path: Path, place: float) -> None:
    good, damaged = write(tmp_path, 5), write(tmp_path, 10)
    content = bytearray(damaged.read_bytes())
    content[int(len(content) * place)] ^= 1
    damaged.write_bytes(content)
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good


def test_what_cannot_be_read_now_is_not_passed_over(tmp_path: Path) -> None:
    """No file can be opened: the system's limit, as good as a file system that is stale."""
    write(tmp_path, 5)
    newest = write(tmp_path, 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            is_whole(newest)
        with pytest.raises(NotNow, match="cannot be read now"):
            newest_whole_checkpoint(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == newest


def test_an_error_at_the_end_of_a_file_is_no_damage(tmp_path: Path) -> None:
    """There zipfile looks for the directory, and calls whatever happens a bad file."""
    path = tmp_path / "ep0-ba5-rank0.pt"
    path.symlink_to("/proc/self/mem")  # whose end nobody may look for
    with pytest.raises(OSError, match="Invalid argument"):
        is_whole(path)


def test_a_place_before_the_beginning_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python before 3.11.4 looks for a directory of the wrong size there; what a later one does cannot show it."""
    path, errors = write(tmp_path, 5), iter([errno.EINVAL, errno.EIO])

    def open_archive(path: Path) -> None:
        raise OSError(next(errors), "as the system says")

    monkeypatch.setattr(on_disk.zipfile, "ZipFile", open_archive)
    assert not is_whole(path)
    with pytest.raises(OSError, match="as the system says"):
        is_whole(path)


def test_a_hole_in_the_middle_is_found_without_reading(tmp_path: Path) -> None:
    """The directory at the end is there, but bytes before it are missing."""
    path = write(tmp_path, 5)
    content = path.read_bytes()
    path.write_bytes(content[:30_000] + content[60_000:])
    assert not is_whole(path, contents=False)


def test_links_and_remains_of_a_save_are_no_checkpoints(tmp_path: Path) -> None:
    good = write(tmp_path, 5)
    (tmp_path / ".saving" / "ep0-ba9").mkdir(parents=True)
    write(tmp_path / ".saving" / "ep0-ba9", 9)
    (tmp_path / "ep0-ba7-rank0.pt").symlink_to("ep0-ba6-rank0.pt")
    (tmp_path / "latest-rank0.pt").symlink_to("ep0-ba8-rank0.pt")
    (tmp_path / "ep0-ba9-rank0.pt.new").touch()
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good


def test_a_sharded_checkpoint_needs_its_metadata_and_all_parts(tmp_path: Path) -> None:
    good = write(tmp_path, 5)
    folder = tmp_path / "ep0-ba10"
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(b"part")
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good
    (folder / ".metadata").write_bytes(b"metadata")
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == folder
    (folder / "__1_0.distcp").touch()
    found = newest_whole_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good


def test_latest_is_a_link_for_people(tmp_path: Path) -> None:
    (tmp_path / "latest-rank0.pt").symlink_to("gone")
    point_latest(tmp_path, write(tmp_path, 5))
    assert (tmp_path / "latest-rank0.pt").readlink() == Path("ep0-ba5-rank0.pt")
