"""A checkpoint file -> the folder that is uploaded: safetensors, JSON, ledger, model card; no pickle.

Works from files alone, so that it can run beside training, and for a run that ended long ago.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from torch import Tensor

from theworld.checkpoint.data_only import load_file, load_folder
from theworld.checkpoint.moving_average import take_average
from theworld.checkpoint.on_disk import PREFIX, PRETRAINED, parse_name
from theworld.checkpoint.weights import RECORD
from theworld.errors import UserError
from theworld.hub.card import write_card
from theworld.hub.layout import LEDGER, STATE, TENSORS, describe
from theworld.hub.state_codec import NotPlain, encode
from theworld.model.adapter_files import write_adapters
from theworld.model.weight_files import WEIGHTS

VERSION = 1
SHARD_SIZE = "4GB"


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint with what belongs to it at that moment, in a folder of its own."""

    folder: Path
    checkpoint: Path
    batch: int

    @classmethod
    def take(cls, save_folder: Path, checkpoint: Path, folder: Path) -> Snapshot:
        """Hold on to a checkpoint, which may be removed while it waits, and to the ledger as it is now.

        Links and some megabytes of ledger: quick, whatever the size of the checkpoint.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        held = folder / checkpoint.name
        if checkpoint.is_dir():
            held.mkdir()
            for part in checkpoint.iterdir():
                link_or_copy(part, held / part.name)
        else:
            link_or_copy(checkpoint, held)
        if (save_folder / PRETRAINED).is_dir():
            shutil.copytree(save_folder / PRETRAINED, folder / PRETRAINED, copy_function=link_or_copy)
        if (save_folder / "ledger").is_dir():
            shutil.copytree(save_folder / "ledger", folder / "ledger")
        for name in ("launches.jsonl", "config.yaml"):
            if (save_folder / name).is_file():
                shutil.copyfile(save_folder / name, folder / name)
        return cls(folder, held, parse_name(checkpoint.name)[1])


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A hard link; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Composer's state from this run's own file, or from the folder that sharded FSDP writes."""
    return load_folder(path) if path.is_dir() else load_file(path)


def export(snapshot: Snapshot, out: Path, repo: str) -> None:
    """Write the folder to upload.

    Args:
        snapshot: of the run.
        out: the folder, made anew.
        repo: ``OWNER/NAME``, for the card.

    Raises:
        UserError: the checkpoint or what belongs to it cannot be used; says why.
    """
    pretrained = snapshot.folder / PRETRAINED
    if not (pretrained / "config.json").is_file():
        raise UserError(f"{pretrained}: not there; start the run once more, it writes configuration and processor")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(pretrained, out)
    whole = read_checkpoint(snapshot.checkpoint)
    state = whole["state"]
    if RECORD not in state:
        raise UserError(f"{snapshot.checkpoint}: not a checkpoint of this trainer")
    take_average(state)  # what people load is the average; a run that goes on from it swaps the two again
    weights: dict[str, Tensor] = state.pop("model")
    write_weights(weights, out)
    write_card(out, repo, whole, list(weights), snapshot.folder / "config.yaml")
    write_resume(snapshot, whole, sorted(weights), out)


def write_weights(weights: dict[str, Tensor], out: Path) -> None:
    """``model*.safetensors`` under the names that transformers knows; with adapters the files that peft knows.

    Raises:
        UserError: the model's configuration is of another form.
    """
    named = {name.removeprefix(PREFIX): weight.detach().cpu().contiguous() for name, weight in weights.items()}
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    if config.get("lora") is not None:
        write_adapters(named, config["lora"], config["base"]["gemma"], out)
        return
    save_torch_state_dict(named, out, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})


def write_resume(snapshot: Snapshot, whole: dict[str, Any], weights: list[str], out: Path) -> None:
    """``resume/``: all of the checkpoint but the weights, and the ledger."""
    (out / STATE).parent.mkdir()
    tensors: dict[str, Tensor] = {}
    try:
        tree = encode(whole, tensors)
    except NotPlain as error:
        raise UserError(f"{snapshot.checkpoint}: {error}") from error
    save_file(own_memory(tensors), out / TENSORS, metadata={"format": "pt"})
    for source in [*snapshot.folder.glob("ledger/*.jsonl"), snapshot.folder / "launches.jsonl"]:
        name = f"resume/{source.relative_to(snapshot.folder).as_posix()}"
        if source.is_file() and LEDGER.fullmatch(name):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, out / name)
    checked = [path for path in out.rglob("*") if path.is_file() and is_needed(path.relative_to(out).as_posix())]
    description = {
        "version": VERSION,
        "checkpoint": snapshot.checkpoint.name,
        "batch": snapshot.batch,
        "weights": weights,
        "files": {path.relative_to(out).as_posix(): describe(path) for path in sorted(checked)},
        "state": tree,
    }
    (out / STATE).write_text(json.dumps(description), encoding="utf-8")


def own_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors; those that share memory with others, which safetensors refuses, are copied."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shares = storage.nbytes() > tensor.nbytes or storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        apart[name] = tensor.clone() if shares else tensor
    return apart


def is_needed(name: str) -> bool:
    """Whether a resume takes this file of a repo."""
    return bool(WEIGHTS.fullmatch(name) or LEDGER.fullmatch(name) or name == TENSORS)
