"""A checkpoint is read as data: what a stranger has put into one does not run.

Both of torch's formats are pickles, and a pickle may name any function to call. ``torch.load(weights_only=True)`` makes
tensors, plain values and what is listed here, and refuses everything else by name; a sharded checkpoint's
``.metadata``, for which torch has no such mode, is read with a list of its own. ``trust_checkpoints: true`` goes
without all of that.
"""

from __future__ import annotations

import collections
import datetime
import io
import os
import pickle
import re
import stat
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.distributed.checkpoint import FileSystemReader  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict
from torch.torch_version import TorchVersion

from theworld.checkpoint.random_states import unpack_random_states
from theworld.errors import UserError, describe

KEY = "trust_checkpoints"
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch's own switch for calls of torch.load that are not ours: Composer's ask for anything."""
PLAIN = [datetime.timedelta, np.ndarray, np.dtype, TorchVersion, collections.deque]
NUMPY_FUNCTIONS = ("_reconstruct", "scalar")
METADATA_MODULE = "torch.distributed.checkpoint.metadata"
METADATA_NAMES = {
    (METADATA_MODULE, "Metadata"),
    (METADATA_MODULE, "MetadataIndex"),
    (METADATA_MODULE, "StorageMeta"),
    (METADATA_MODULE, "TensorProperties"),
    (METADATA_MODULE, "TensorStorageMetadata"),
    (METADATA_MODULE, "ChunkStorageMetadata"),
    (METADATA_MODULE, "BytesStorageMetadata"),
    (METADATA_MODULE, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
}
NAMED = re.compile(r"GLOBAL ([\w.]+)")


def _numpy_functions() -> list[Any]:
    """What numpy's pickles call, under the names of numpy 2 and of numpy 1."""
    module = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    found: list[Any] = []
    for name in NUMPY_FUNCTIONS:
        found += [(getattr(module, name), f"numpy.{core}.multiarray.{name}") for core in ("_core", "core")]
    return found


def _numpy_dtypes() -> list[Any]:
    return [kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and kind is not np.dtypes.ObjectDType]


torch.serialization.add_safe_globals([*PLAIN, *_numpy_functions(), *_numpy_dtypes()])


class Refused(pickle.UnpicklingError):
    """A pickle names something that is no data."""


class MetadataUnpickler(pickle._Unpickler):
    """Makes what a sharded checkpoint's ``.metadata`` is made of, and nothing else.

    The Python version of the reader, since the one in C gives no say over its instructions.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # pyright: ignore[reportAttributeAccessIssue]

    def load_build(self) -> None:
        """Set an object's fields; refused for a class or a function, whose fields all code of this process shares."""
        if callable(self.stack[-2]):  # pyright: ignore[reportAttributeAccessIssue]
            raise Refused("GLOBAL setattr")
        super().load_build()  # pyright: ignore[reportAttributeAccessIssue]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in METADATA_NAMES:
            return super().find_class(module, name)
        raise Refused(f"GLOBAL {module}.{name}")


class DataReader(FileSystemReader):
    """torch's reader of a sharded checkpoint, which would unpickle its ``.metadata``."""

    def read_metadata(self) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise Refused(f"its .metadata is a {type(metadata).__name__}")
        for place in (metadata.storage_data or {}).values():
            if not isinstance(place, _StorageInfo) or Path(place.relative_path).name != place.relative_path:
                raise Refused("its .metadata leads out of its folder")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _DataBytes:
    """Makes the values of a sharded checkpoint that are no tensors from data only."""

    def load_bytes(self: Any, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        content = torch.load(value, weights_only=True)
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], content)
        else:
            self.state_dict[name] = content


class DataPlanner(_DataBytes, DefaultLoadPlanner):
    """Reads a sharded checkpoint into a state that is there."""


class WholeDataPlanner(_DataBytes, _EmptyStateDictLoadPlanner):
    """Reads all of a sharded checkpoint into an empty dictionary."""


def load_file(path: Path, trust: bool = False) -> dict[str, Any]:
    """Composer's state from a checkpoint file; mapped, so that no weight is read yet.

    Args:
        path: the file.
        trust: unpickle whatever it holds.

    Raises:
        UserError: it names something that is no data.
    """
    with refusals_as_one_line(path):
        return torch.load(path, map_location="cpu", mmap=True, weights_only=not trust)


def load_folder(path: Path) -> dict[str, Any]:
    """Composer's state from a sharded checkpoint, all in memory; random states as Composer has them.

    Raises:
        UserError: it names something that is no data.
    """
    state: dict[str, Any] = {}
    with refusals_as_one_line(path):
        _load_state_dict(state, storage_reader=DataReader(path), planner=WholeDataPlanner(), no_dist=True)
    if isinstance(state.get("rng"), torch.Tensor):
        state["rng"] = unpack_random_states(state["rng"])
    return state


@contextmanager
def composer_loads_data(path: str | None, trust: bool) -> Iterator[None]:
    """Within it Composer's own loading makes data only.

    Args:
        path: the checkpoint, for the line; None: there is none.
        trust: let it unpickle whatever the checkpoint holds.

    Raises:
        UserError: the checkpoint names something that is no data, or its state is of another form.
    """
    before = os.environ.get(FORCED)
    if path is not None and not trust:
        os.environ[FORCED] = "1"
    try:
        with refusals_as_one_line(path or ""):
            yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # Whatever a value of another type makes Composer raise; memory that is short has a line of its own.
        if path is None or "out of memory" in str(error).lower() or not raised_while_loading(error):
            raise
        raise UserError(f"{path}: its state cannot be loaded ({describe(error)})") from error
    finally:
        if before is None:
            os.environ.pop(FORCED, None)
        else:
            os.environ[FORCED] = before


def raised_while_loading(error: BaseException) -> bool:
    """Whether an error comes from Composer's loading of a checkpoint."""
    return any(frame.f_code.co_name == "load_checkpoint" for frame, _ in traceback.walk_tb(error.__traceback__))


@contextmanager
def refusals_as_one_line(path: Path | str) -> Iterator[None]:
    """Turn what the readers above refuse into a line that says what to do.

    Raises:
        UserError: names what the checkpoint would have called.
    """
    try:
        yield
    except (pickle.UnpicklingError, CheckpointException) as error:
        cause = error
        if isinstance(error, CheckpointException):
            cause = next(iter(error.failures.values()))[0]
        named = NAMED.search(str(cause))
        if named is None or not isinstance(cause, pickle.UnpicklingError):
            raise
        raise UserError(
            f"{path}: holds {named[1]}, which is not data: reading it could run code; {KEY}=true reads it anyway, "
            "if you trust all who could write it"
        ) from error


def check_owner(path: Path, trust: bool) -> None:
    """Refuse a checkpoint that somebody else has put there, or may change.

    Files of root and files that a group may write are fine.

    Args:
        path: a file, or the folder of a sharded checkpoint.
        trust: take it from anybody.

    Raises:
        UserError: names the file and its owner.
    """
    if trust:
        return
    for file in [path, *(path.iterdir() if path.is_dir() else ())]:
        facts = file.stat()
        if facts.st_uid not in (0, os.geteuid()):
            raise UserError(
                f"{file}: belongs to user {facts.st_uid}, and a checkpoint may hold code; copy it, or set {KEY}=true "
                "if you trust them"
            )
        if facts.st_mode & stat.S_IWOTH:
            raise UserError(
                f"{file}: every user of this machine may write it, and a checkpoint may hold code: chmod o-w, or set "
                f"{KEY}=true"
            )
