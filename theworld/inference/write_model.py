"""A model to a folder that ``from_pretrained`` reads."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import Gemma3Config, Gemma3Processor

from theworld.checkpoint.on_disk import PRETRAINED
from theworld.errors import UserError
from theworld.files import put_in_place, temporary_name
from theworld.inference.load_trained import Trained, find_checkpoint, put_together, trained_weights
from theworld.model.adapter_files import write_adapters
from theworld.model.adapters import merge_adapters
from theworld.model.configuration import TheWorldConfig

SHARD_SIZE = "4GB"


def export_run(save_folder: Path, out: Path, wanted: str | None, merge: bool, dtype: torch.dtype | None) -> None:
    """Write a run's checkpoint as a model.

    Args:
        save_folder: of the run.
        out: the folder to make.
        wanted: name of the checkpoint; None: the newest that is whole.
        merge: write all weights, adapters added to those of their layers; else those that the base models do not have,
            which are put on them when it is loaded, adapters as peft reads them. A model without a world or adapters is
            always written whole, as the plain Gemma 3 that it is.
        dtype: of the weights; None: as in the checkpoint.

    Raises:
        UserError: ``out`` is there already, or the run or its bases cannot be read.
    """
    check_new(out)
    checkpoint = find_checkpoint(save_folder, wanted)
    write_model(save_folder, trained_weights(checkpoint), checkpoint.name, out, merge, dtype)


def check_new(out: Path) -> None:
    """Nothing is written over.

    Raises:
        UserError: the folder is there.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder")


def write_model(
    save_folder: Path,
    weights: dict[str, torch.Tensor],
    source: str,
    out: Path,
    merge: bool,
    dtype: torch.dtype | None,
) -> None:
    """As :func:`export_run`, with weights of the run at hand; ``source`` names them in errors.

    Raises:
        UserError: the run or its bases cannot be read.
    """
    pretrained = save_folder / PRETRAINED
    if not (pretrained / "config.json").is_file():
        raise UserError(f"{pretrained}: not there; start the run once more, it writes configuration and processor")
    precision = dtype or next(iter(weights.values())).dtype
    aside = temporary_name(out)
    shutil.rmtree(aside, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = TheWorldConfig.from_pretrained(pretrained)
    try:
        if merge or (not config.enable_world and config.lora is None):
            trained = put_together(save_folder, weights, source, precision)
            if config.lora is not None:
                merge_adapters(trained.model)
                trained.model.config.lora = None
                trained.model.config.base["gemma"].pop("form", None)
            write_whole(trained, aside)
        else:
            shutil.copytree(pretrained, aside)
            write_weights(weights, aside, precision, config)
        put_in_place(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_whole(trained: Trained, out: Path) -> None:
    """All weights, configuration and processor; a plain Gemma 3 where there is no world."""
    out.mkdir(parents=True)
    model, processor = trained.model, trained.processor
    if model.config.enable_world:
        config: Gemma3Config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        processor.save_pretrained(out)
    else:
        config = plain_config(model.config)
        Gemma3Processor(
            processor.image_processor,
            processor.tokenizer,
            processor.chat_template,
            processor.image_seq_length,
        ).save_pretrained(out)
    config.dtype = next(model.parameters()).dtype
    config.save_pretrained(out)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(out)
    weights = model.state_dict()
    if model.config.get_text_config().tie_word_embeddings:
        del weights["lm_head.weight"]  # transformers looks for the embedding, and ties the head to it
    save_torch_state_dict(weights, out, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})


def plain_config(config: TheWorldConfig) -> Gemma3Config:
    """Gemma 3's configuration out of that of a TheWorld without a world."""
    ours = set(TheWorldConfig().to_dict()) - set(Gemma3Config().to_dict())
    settings = {name: value for name, value in config.to_dict().items() if name not in ours | {"model_type"}}
    plain = Gemma3Config(**settings)
    plain.architectures = ["Gemma3ForConditionalGeneration"]
    return plain


def write_weights(weights: dict[str, torch.Tensor], out: Path, dtype: torch.dtype, config: TheWorldConfig) -> None:
    """``model*.safetensors``, or the files of peft, in this precision."""
    cast = {name: one.to(dtype).contiguous() if one.is_floating_point() else one for name, one in weights.items()}
    if config.lora is not None:
        write_adapters(cast, config.lora, config.base["gemma"], out)
        return
    save_torch_state_dict(cast, out, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})
