"""Which weights a checkpoint holds, and where the others come from.

A checkpoint holds what trains, and what an earlier stage has trained; everything else is found again in the base
models. Composer ignores weights that are missing from a file or unknown to the model when it resumes, so names, shapes
and bases are checked here, before it loads anything.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint import FileSystemReader  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded

from theworld.checkpoint.beside_weights import read_nesting, take_nesting, trim
from theworld.checkpoint.data_only import (
    DataPlanner,
    DataReader,
    check_owner,
    load_file,
    refusals_as_one_line,
)
from theworld.checkpoint.pass_proof import PROOF
from theworld.compat import as_named_here
from theworld.config.schema import ModelConfig
from theworld.errors import UserError, first_line
from theworld.model.check_four_bits import in_four_bits
from theworld.model.check_lora import SAME_ADAPTERS
from theworld.ranks import from_rank_zero

if TYPE_CHECKING:
    from theworld.train.composer_model import ComposerTheWorld

log = logging.getLogger(__name__)

RECORD = "theworld_weights"
"""Key beside Composer's own in a checkpoint's ``state``: JSON text, so that a sharded checkpoint can hold it too."""
VERSION = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class SavedWeights:
    """The weights in a checkpoint."""

    path: str
    shapes: dict[str, Shape]
    trained: frozenset[str] | None
    """Names that trained in the run that wrote it; None if it was not written by this project."""
    bases: dict[str, dict[str, str | None]]
    """``gemma`` and ``cosmos``: name, revision and fingerprint of the base models, and ``form`` of one in 4 bits."""
    proof: str | None = None
    """What it says of the samples of its passes (:mod:`~theworld.checkpoint.pass_proof`)."""
    groups: tuple[str, ...] = ()
    """Names of the optimizer's groups; none where it has one of everything."""
    lora: dict[str, Any] | None = None
    """``model.lora`` of the run that wrote it."""
    nesting: dict[str, Any] | None = None
    """Of a sharded checkpoint: what it holds beside weights and optimizer (:mod:`.beside_weights`)."""


def read_saved_weights(path: str, trust: bool = False) -> SavedWeights:
    """What a checkpoint holds, the same on all ranks: rank 0 looks.

    Args:
        path: the file or folder.
        trust: take it from anybody, and unpickle whatever it holds (``trust_checkpoints``).

    Raises:
        UserError: it is no checkpoint, or cut short, or behind a URL, or may hold what others have put there.
    """
    if "://" in path:
        raise UserError(
            f"load_path: {path}: copy the checkpoint to a folder first; its weights are checked before a load"
        )
    return from_rank_zero(lambda: _read(Path(path), trust))


def _read(path: Path, trust: bool) -> SavedWeights:
    try:
        check_owner(path, trust)
        return _read_folder(path, trust) if path.is_dir() else _read_file(path, trust)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a whole checkpoint of this trainer ({first_line(error)})") from error
    except CheckpointException as error:
        raise UserError(f"{path}: its description cannot be read ({first_line(error)})") from error


def _read_file(path: Path, trust: bool) -> SavedWeights:
    state = load_file(path, trust)["state"]
    return _saved_weights(path, {name: tuple(weight.shape) for name, weight in state["model"].items()}, state)


def _read_folder(path: Path, trust: bool) -> SavedWeights:
    reader = FileSystemReader(path) if trust else DataReader(path)
    with refusals_as_one_line(path):
        metadata = reader.read_metadata()
    described = metadata.state_dict_metadata
    prefix = "state.model."
    sizes = {name: getattr(entry, "size", None) for name, entry in described.items() if name.startswith(prefix)}
    shapes = {name.removeprefix(prefix): tuple(size) for name, size in sizes.items() if size is not None}
    state: dict[str, Any] = {key: "" for key in (RECORD, PROOF) if f"state.{key}" in described}
    if state:
        with refusals_as_one_line(path):
            load_sharded({"state": state}, storage_reader=reader, planner=DataPlanner(), no_dist=True)
    return replace(_saved_weights(path, shapes, state), nesting=read_nesting(metadata))


def _saved_weights(path: Path, shapes: dict[str, Shape], state: dict[str, Any]) -> SavedWeights:
    if RECORD not in state:
        return SavedWeights(str(path), shapes, None, {})
    record = json.loads(state[RECORD])
    if record["version"] != VERSION:
        raise UserError(f"{path}: written by another version of this trainer ({record['version']})")
    if not all(isinstance(base, dict) for base in dict(record["bases"]).values()):
        raise ValueError("its record of the base models is of another form")
    lost = sorted({*record["trained"], *record["inherited"]} - shapes.keys())
    if lost:
        raise UserError(f"{path}: {len(lost)} weights that it should hold are missing, for example {lost[0]}")
    groups = tuple(str(name) for name in record.get("groups", ()))
    trained, bases, lora = frozenset(record["trained"]), record["bases"], record.get("lora")
    return SavedWeights(str(path), shapes, trained, bases, state.get(PROOF), groups, lora)


def holds_vae(saved: SavedWeights | None) -> bool:
    """Whether a checkpoint has a VAE that an earlier stage trained: latents of the base's are wrong for it."""
    return saved is not None and any(".world_encoder." in name for name in saved.shapes)


def pin_bases(config: ModelConfig, saved: SavedWeights) -> None:
    """Ask for the revisions of the base models that the checkpoint was trained with, where the YAML names none."""
    for part, key in (("gemma", "gemma_revision"), ("cosmos", "cosmos_revision")):
        base = saved.bases.get(part, {})
        if base.get("revision") and base.get("name") == getattr(config, part) and getattr(config, key) is None:
            log.info("model.%s: %s, as in %s", key, base["revision"], saved.path)
            setattr(config, key, base["revision"])


class Weights:
    """The weights of a run: what its checkpoints hold, and what it may take from one.

    Args:
        model: before Composer wraps it for DDP or FSDP, freezing applied.
        groups: names of the optimizer's groups.
    """

    def __init__(self, model: ComposerTheWorld, groups: Sequence[str] = ()) -> None:
        self.groups = tuple(groups)
        self.shapes: dict[str, Shape] = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        named = dict(model.named_parameters(remove_duplicate=False))
        self.trained = frozenset(name for name, parameter in named.items() if parameter.requires_grad)
        # No base holds the projector, whether it trains or not.
        frozen = {name for name in named.keys() - self.trained if ".world_projector." not in name}
        self.kept = set(self.shapes) - frozen
        self.bases: dict[str, dict[str, str | None]] = model.model.config.base
        self.lora: dict[str, Any] | None = model.model.config.lora
        self.saved: SavedWeights | None = None

    def take_from(self, saved: SavedWeights, new_stage: bool) -> None:
        """Check that a checkpoint fits, and remember what it holds.

        Args:
            saved: the checkpoint.
            new_stage: only its weights are wanted, and freezing may differ: what it lacks comes from the bases.

        Raises:
            UserError: a weight is missing, unexpected or of another shape, or the bases are other ones.
        """
        self._check_bases(saved)
        self._check_adapters(saved)
        unknown = sorted(saved.shapes.keys() - self.shapes.keys())
        if any(as_named_here(name) in self.shapes for name in unknown):
            raise UserError(
                f"{saved.path}: names the weights of the vision tower as another major version of transformers does, "
                f"for example {unknown[0]}; go on with the packages that it was written with (docs/newer-torch.md)"
            )
        if unknown:
            raise UserError(
                f"{saved.path}: holds {len(unknown)} weights that the model does not have, for example {unknown[0]}; "
                "is section model the same as when it was written?"
            )
        for name, shape in saved.shapes.items():
            if shape != self.shapes[name]:
                raise UserError(
                    f"{saved.path}: {name} is {shape}, the model's is {self.shapes[name]}; "
                    "is section model the same as when it was written?"
                )
        self._check_missing(saved, new_stage)
        if not new_stage and saved.trained is not None and saved.groups != self.groups:
            then, now = (", ".join(names) or "one group of everything" for names in (saved.groups, self.groups))
            raise UserError(
                f"{saved.path}: its optimizer has {then}, but optimizer.groups and decay_norms_and_biases make {now}; "
                f"set them as they were, or start a new stage with load_path={saved.path} load_weights_only=true and "
                "another save_folder"
            )
        self.kept |= saved.shapes.keys() if saved.trained is not None else set()
        self.saved = saved

    def _check_missing(self, saved: SavedWeights, new_stage: bool) -> None:
        if saved.trained is None:
            missing = sorted(self.shapes.keys() - saved.shapes.keys())
        elif new_stage:
            # Every checkpoint of a model with a world holds the projector.
            missing = sorted(name for name in self.shapes.keys() - saved.shapes.keys() if ".world_projector." in name)
        elif self.trained != saved.trained:
            other = sorted(self.trained ^ saved.trained)
            raise UserError(
                f"{saved.path}: model.freeze or model.lora has changed, {len(other)} weights train now or did then but "
                f"not both, for example {other[0]}; start a new stage with load_path={saved.path} "
                "load_weights_only=true and another save_folder"
            )
        else:
            missing = []
        if missing:
            raise UserError(f"{saved.path}: {len(missing)} weights of the model are missing, for example {missing[0]}")

    def _check_adapters(self, saved: SavedWeights) -> None:
        """The same numbers mean another model with another alpha, and a layer's name is another under an adapter."""
        differ = sorted(key for key in SAME_ADAPTERS if (saved.lora or {}).get(key) != (self.lora or {}).get(key))
        if saved.lora is not None and self.lora is not None and differ:
            then, now = (", ".join(f"{key} {one[key]}" for key in differ) for one in (saved.lora, self.lora))
            raise UserError(f"{saved.path}: its adapters have {then}, but model.lora has {now}; set that as it was")
        if saved.lora is not None and self.lora is None:
            raise UserError(
                f"{saved.path}: holds adapters, and model.lora is null; set it as it was, or make a whole model of the "
                "run with recipes/export.py --merge"
            )
        adapted = {name.replace(".base_layer.", ".") for name in self.shapes if ".base_layer." in name}
        lost = sorted(adapted & saved.shapes.keys())
        if lost:
            raise UserError(
                f"{saved.path}: has trained {lost[0]} itself, which model.lora would put an adapter on; leave its part "
                "out of model.lora.parts"
            )

    def _check_bases(self, saved: SavedWeights) -> None:
        for part, then in saved.bases.items():
            now = self.bases.get(part, {})
            if then.get("fingerprint") and now.get("fingerprint") and then["fingerprint"] != now["fingerprint"]:
                raise UserError(
                    f"model.{part}: {_base_name(now)} holds other weights than {_base_name(then)}, with which "
                    f"{saved.path} was trained; name that one"
                )
        then, now = (in_four_bits(bases.get("gemma", {}), saved.path) for bases in (saved.bases, self.bases))
        # A projector alone may go on beside either; what adapters have learnt is the difference to their own base.
        if saved.lora is not None and self.lora is not None and then != now:
            raise UserError(
                f"{saved.path}: its adapters are for a base {'' if then else 'not '}in 4 bits; set model.load_in_4bit="
                f"{str(then).lower()}, or make a whole model of the run with recipes/export.py --merge"
            )

    def drop_frozen(self, checkpoint: dict[str, Any]) -> None:
        """Take out of a checkpoint that is about to be written what the bases hold, and add the record."""
        state = checkpoint["state"]
        trim(checkpoint)
        for name in [name for name in state["model"] if name not in self.kept]:
            del state["model"][name]
        state[RECORD] = json.dumps(
            {
                "version": VERSION,
                "trained": sorted(self.trained),
                "inherited": sorted(self.kept - self.trained),
                "groups": self.groups,
                "bases": self.bases,
                "lora": self.lora,
            }
        )

    def select_saved(self, checkpoint: dict[str, Any]) -> None:
        """Composer's ``load_ignore_keys``: of the model's own state (a sharded checkpoint) or the file's content leave
        what the checkpoint holds."""
        state = checkpoint["state"]
        assert self.saved is not None
        if self.saved.nesting is not None and "metadata" in state:
            take_nesting(checkpoint, self.saved.nesting)
        for key in (RECORD, PROOF):
            state.pop(key, None)
        if state.get("model") is not None:
            for name in [name for name in state["model"] if name not in self.saved.shapes]:
                del state["model"][name]


def _base_name(base: dict[str, str | None]) -> str:
    return f"{base['name']} at {base['revision']}" if base.get("revision") else str(base.get("name"))
