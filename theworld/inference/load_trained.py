"""One door for whatever holds a model: a run, an exported folder, a Hub repo, plain Gemma 3."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from theworld.checkpoint.on_disk import PREFIX, PRETRAINED, is_whole, list_checkpoints, newest_whole_checkpoint
from theworld.config.of_run import read_run_config, setting
from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.errors import UserError, describe, first_line
from theworld.model.auto import TheWorldConfig, TheWorldForConditionalGeneration, TheWorldProcessor
from theworld.model.base import BUILTIN_TINY, download, fingerprint
from theworld.stage_folders import newest_run

log = logging.getLogger(__name__)

REPO_FILES = [
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.json", "chat_template.jinja", "model*.safetensors", "model.safetensors.index.json"),
    "adapter_model.safetensors",
]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Trained:
    """A model that can be asked, in eval mode on its device."""

    model: TheWorldForConditionalGeneration
    processor: TheWorldProcessor
    name: str
    """As the user gave it, with the checkpoint's name if it is a run's."""
    identity: str
    """Tells weights apart: the same for the same weights, whatever the folder is called."""
    draws_boxes: bool = True
    """Whether it was trained on pictures with boxes in them."""
    own: bool = False
    """Whether it is from a run's save_folder; the files of other models may say anything."""

    @contextmanager
    def faults_of_its_files(self) -> Iterator[None]:
        """What a model of somebody else's runs into, asked for the first time, comes from its files.

        Raises:
            UserError: instead of any error, unless memory is short.
        """
        with faults_as_one_line(self.name) if not self.own else nullcontext():
            yield


@contextmanager
def faults_as_one_line(name: str) -> Iterator[None]:
    """Any error while it is open is one of a model's files, whose values the libraries take as they are.

    Raises:
        UserError: names the model.
    """
    try:
        yield
    except (UserError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        log.debug("%s", name, exc_info=error)
        raise UserError(f"{name}: its files are damaged or do not go together ({describe(error)})") from error


def load_trained(
    where: str, checkpoint: str | None = None, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Trained:
    """Load a model.

    Args:
        where: a run's ``save_folder`` (of a run in stages that of the newest is taken), a folder that
            ``from_pretrained`` reads, ``OWNER/NAME[@REVISION]`` on the Hub, or ``builtin:tiny``. A folder or
            repo may hold TheWorld, whole or only what was trained, or a plain Gemma 3.
        checkpoint: name or path of a run's checkpoint; None: the newest that is whole.
        dtype: of the weights; None: bfloat16 on a GPU, float32 elsewhere.
        device: None: a GPU if there is one.

    Raises:
        UserError: there is no such model, it is damaged, or it is of another kind.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    path = Path(where).expanduser()
    path = newest_run(path, saved=True) if path.is_dir() else path
    if path.is_dir() and ((path / PRETRAINED).is_dir() or list_checkpoints(path)):
        trained = load_run(path, checkpoint, dtype)
    elif checkpoint is not None:
        raise UserError(f"{where}: no run's save_folder, so it has no checkpoint {checkpoint}")
    elif where == BUILTIN_TINY:
        trained = load_gemma(where, where, dtype)
    else:
        trained = load_folder(where, path if path.is_dir() else fetch(where), dtype)
    model: Any = trained.model.eval()
    return replace(trained, model=model.to(device))


def fetch(where: str) -> Path:
    """The local folder of a repo on the Hub."""
    name, _, revision = where.partition("@")
    if where.startswith(("/", ".", "~", "builtin:")) or name.count("/") != 1:
        raise UserError(f"{where}: no such folder, and not a Hub repo of the form OWNER/NAME")
    return download("model", name, revision or None, REPO_FILES)


def load_folder(where: str, folder: Path, dtype: torch.dtype) -> Trained:
    """A folder that ``from_pretrained`` reads: TheWorld or Gemma 3."""
    kind = model_type(folder)
    if kind == "gemma3":
        with faults_as_one_line(where):
            return load_gemma(where, str(folder), dtype)
    if kind != TheWorldConfig.model_type:
        raise UserError(f"{where}: holds a {kind}; expected TheWorld or a Gemma 3 with vision")
    with faults_as_one_line(where):
        model = TheWorldForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        processor = TheWorldProcessor.from_pretrained(folder)
        assert isinstance(processor, TheWorldProcessor)
        return Trained(model, processor, where, identity_of(model.config, fingerprint(folder)))


def model_type(folder: Path) -> str:
    """What a folder's ``config.json`` says that it holds.

    Raises:
        UserError: it has none that can be read.
    """
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = "a run's save_folder, or a model's folder with a config.json"
        raise UserError(f"{folder}: expected {what} ({first_line(error)})") from error


def load_gemma(where: str, gemma: str, dtype: torch.dtype) -> Trained:
    """A plain Gemma 3, as TheWorld without a world, which gives the same logits."""
    from theworld.model.build import load_model, load_processor

    # A model must have something to train, also where nobody does.
    config = ModelConfig(gemma=gemma, enable_world=False, freeze=FreezeConfig(language=False))
    model = load_model(config, dtype)
    base = model.config.base["gemma"]
    return Trained(model, load_processor(config), where, identity_of(model.config, base["fingerprint"]))


def load_run(save_folder: Path, wanted: str | None, dtype: torch.dtype) -> Trained:
    """A checkpoint of a run, on its base models."""
    checkpoint = find_checkpoint(save_folder, wanted)
    trained = put_together(save_folder, trained_weights(checkpoint), checkpoint.name, dtype)
    return replace(trained, identity=identity_of(trained.model.config, file_parts(checkpoint)))


def put_together(save_folder: Path, weights: dict[str, torch.Tensor], source: str, dtype: torch.dtype) -> Trained:
    """Weights that a run has trained, on its base models; they have no identity yet.

    Args:
        save_folder: of the run.
        weights: by the model's own names.
        source: where in the run they are from.
        dtype: of the model.

    Raises:
        UserError: a base is missing or another one, or a weight is missing, unexpected or of another shape.
    """
    from theworld.model.on_bases import put_on_bases

    pretrained = save_folder / PRETRAINED
    if not (pretrained / "config.json").is_file():
        raise UserError(f"{pretrained}: not there; start the run once more, it writes configuration and processor")
    with faults_as_one_line(str(pretrained)):  # transformers 5 writes what 4 cannot read
        config = TheWorldConfig.from_pretrained(pretrained)
        processor = TheWorldProcessor.from_pretrained(pretrained)
    assert isinstance(config, TheWorldConfig)
    assert isinstance(processor, TheWorldProcessor)
    model = put_on_bases(TheWorldForConditionalGeneration, weights, str(save_folder / source), config, dtype=dtype)
    return Trained(model, processor, f"{save_folder} ({source})", "", draws_boxes(save_folder), own=True)


def find_checkpoint(save_folder: Path, wanted: str | None) -> Path:
    """The checkpoint asked for, or the newest that is whole.

    Raises:
        UserError: there is none, or it is not whole.
    """
    if wanted is None:
        newest = newest_whole_checkpoint(save_folder)
        if newest is None:
            raise UserError(f"{save_folder}: no whole checkpoint in it")
        return newest.path
    for path in (save_folder / wanted, Path(wanted)):
        if path.exists():
            if not is_whole(path):
                raise UserError(f"{path}: not a whole checkpoint")
            return path
    there = ", ".join(one.path.name for one in list_checkpoints(save_folder)) or "none"
    raise UserError(f"{save_folder}: no checkpoint {wanted}; there are: {there}")


def trained_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint under the model's own names; their moving average where the run has kept one.

    Raises:
        UserError: it is no checkpoint of this trainer.
    """
    return read_trained(checkpoint)[0]


def read_trained(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """:func:`trained_weights`, and what the checkpoint's record says of base models and adapters.

    Raises:
        UserError: it is no checkpoint of this trainer.
    """
    from theworld.checkpoint.data_only import load_file, load_folder
    from theworld.checkpoint.moving_average import take_average
    from theworld.checkpoint.weights import RECORD

    try:
        whole = load_folder(checkpoint) if checkpoint.is_dir() else load_file(checkpoint)
        take_average(whole["state"])
        weights, record = whole["state"]["model"], json.loads(whole["state"].get(RECORD, "{}"))
        named = {name.removeprefix(PREFIX): weight for name, weight in weights.items()}
        return named, {key: record.get(key) for key in ("bases", "lora")}
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError) as error:
        raise UserError(f"{checkpoint}: not a checkpoint of this trainer ({first_line(error)})") from error


def draws_boxes(save_folder: Path) -> bool:
    """Whether a run's pictures had their boxes drawn; yes if its config.yaml is lost."""
    found = setting(read_run_config(save_folder / "config.yaml"), "train_loader.dataset.draw_bboxes")
    return found is None or bool(found)


def identity_of(config: TheWorldConfig, weights: str | None) -> str:
    """A hash of the weights and of what the model is made of."""
    projector = (config.projector_mode, str(config.projector_patch), str(config.projector_queries))
    parts = [weights or "", *projector, str(config.enable_world), str(config.world_image_size)]
    return hashlib.sha256(json.dumps([*parts, config.base]).encode()).hexdigest()[:16]


def file_parts(path: Path) -> str:
    """A hash of sizes, beginnings and ends of a checkpoint's files; reading all of them would take minutes."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for part in range(64):
                stream.seek(size * part // 64)
                digest.update(stream.read(4096))
    return digest.hexdigest()
