"""A checkpoint is data: whatever a stranger has pickled into one is refused by name, and does not run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.format_utils import torch_save_to_dcp
from torch.distributed.checkpoint.state_dict_loader import load

from theworld.audit.claim import newest_claim
from theworld.checkpoint.data_only import check_owner, composer_loads_data, load_folder
from theworld.checkpoint.pass_proof import PROOF, RunProof
from theworld.checkpoint.weights import RECORD, read_saved_weights
from theworld.errors import UserError


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.ran),)


def state_with(value: Any) -> dict[str, Any]:
    record = {"version": 1, "trained": ["model.weight"], "inherited": [], "bases": {}}
    proof = RunProof()
    proof.begin_attempt(1, 0, 1)
    proof.advance(1, [], [])
    state = {
        "model": {"model.weight": torch.ones(3)},
        "callbacks": {"Mine": value},
        RECORD: json.dumps(record),
        PROOF: proof.text(),
    }
    return {"state": state, "rng": [{"numpy": ("MT19937", np.arange(4, dtype=np.uint32), 3, 0, 0.5)}]}


def write(path: Path, value: Any, sharded: bool) -> Path:
    """A checkpoint as this trainer writes it, with something in a callback's state."""
    torch.save(state_with(value), path / "whole.pt")
    if not sharded:
        return (path / "whole.pt").rename(path / "ep0-ba1-rank0.pt")
    torch_save_to_dcp(path / "whole.pt", path / "ep0-ba1")
    (path / "whole.pt").unlink()
    return path / "ep0-ba1"


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_data_is_read(tmp_path: Path, sharded: bool) -> None:
    path = write(tmp_path, {"mean": np.float32(2.5), "list": [1, None, (2, "x")]}, sharded)
    assert read_saved_weights(str(path)).shapes == {"model.weight": (3,)}
    if sharded:
        whole = load_folder(path)
        assert whole["state"]["callbacks"]["Mine"] == {"mean": 2.5, "list": [1, None, (2, "x")]}
        assert whole["state"]["model"]["model.weight"].eq(1).all()


def test_code_in_a_file_is_refused_by_name_unless_it_is_trusted(tmp_path: Path) -> None:
    path, ran = write(tmp_path, None, sharded=False), tmp_path / "ran"
    torch.save(state_with(Code(ran)), path)
    with pytest.raises(UserError, match=r"holds \w+\.mkdir, which is not data.*trust_checkpoints=true") as refused:
        read_saved_weights(str(path))
    assert "\n" not in str(refused.value)
    assert not ran.exists()
    read_saved_weights(str(path), trust=True)
    assert ran.is_dir()


def test_code_in_the_description_of_a_sharded_checkpoint_is_refused(tmp_path: Path) -> None:
    path, ran = write(tmp_path, None, sharded=True), tmp_path / "ran"
    (path / ".metadata").write_bytes(pickle.dumps(Code(ran)))
    with pytest.raises(UserError, match="mkdir, which is not data"):
        read_saved_weights(str(path))
    assert not ran.exists()


def test_a_description_that_would_change_a_class_for_the_whole_process_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, None, sharded=True)
    # The class itself where an object is expected, with a field for it: `setattr(PosixPath, "planted", 1)`.
    (path / ".metadata").write_bytes(b"cpathlib\nPosixPath\n(N(S'planted'\nI1\ndtb.")
    with pytest.raises(UserError, match="setattr, which is not data"):
        read_saved_weights(str(path))
    assert not hasattr(PosixPath, "planted")


def test_code_in_a_value_of_a_sharded_checkpoint_is_refused(tmp_path: Path) -> None:
    # Written with a harmless value, whose bytes in the part are then those of another pickle.
    path, ran = write(tmp_path, "placeholder", sharded=True), tmp_path / "ran"
    metadata = FileSystemReader(path).read_metadata()
    place = next(info for index, info in metadata.storage_data.items() if index.fqn == "state.callbacks.Mine")
    part = path / place.relative_path
    end = part.stat().st_size
    with part.open("ab") as file:
        torch.save(Code(ran), file)
    place.offset, place.length = end, part.stat().st_size - end
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(UserError, match="mkdir, which is not data"):
        load_folder(path)
    with pytest.raises(UserError, match="mkdir, which is not data"):
        load_as_composer(path)
    assert not ran.exists()


def load_as_composer(path: Path) -> None:
    with composer_loads_data(str(path), trust=False):
        load({"state": {"callbacks": {"Mine": ""}}}, storage_reader=FileSystemReader(path), no_dist=True)


def test_a_description_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, None, sharded=True)
    metadata = FileSystemReader(path).read_metadata()
    next(iter(metadata.storage_data.values())).relative_path = "../elsewhere"
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(UserError, match="leads out of its folder"):
        read_saved_weights(str(path))


def test_the_audit_of_a_sharded_checkpoint_unpickles_nothing(tmp_path: Path) -> None:
    path, ran = write(tmp_path, None, sharded=True), tmp_path / "ran"
    claim = newest_claim(tmp_path)
    assert claim is not None
    assert claim.batches == 1
    metadata = FileSystemReader(path).read_metadata()
    metadata.storage_meta = Code(ran)  # pyright: ignore[reportAttributeAccessIssue]
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    assert newest_claim(tmp_path) == claim
    assert not ran.exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_what_all_may_write_or_another_owns_is_refused(tmp_path: Path, sharded: bool) -> None:
    path = write(tmp_path, None, sharded)
    inner = next(path.iterdir()) if sharded else path
    inner.chmod(0o664)
    check_owner(path, trust=False)
    inner.chmod(0o666)
    with pytest.raises(UserError, match="every user of this machine may write it"):
        read_saved_weights(str(path))
    read_saved_weights(str(path), trust=True)
    inner.chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    shutil.chown(inner, 12345)
    with pytest.raises(UserError, match="belongs to user 12345"):
        read_saved_weights(str(path))
