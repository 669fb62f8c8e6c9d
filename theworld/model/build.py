"""Build TheWorld from the section ``model`` of the YAML."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import torch
from transformers import Gemma3Config, Gemma3Processor, Gemma3TextConfig

import theworld.model.auto  # noqa: F401 - a model that is built can also be saved and found by the Auto classes
from theworld.compat import recompute_layers
from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.errors import UserError, first_line
from theworld.model.adapters import adapter_weights, add_adapters, is_adapter
from theworld.model.base import Base, resolve_gemma, resolve_vae
from theworld.model.cast import cast_parameters
from theworld.model.check_four_bits import FORM
from theworld.model.check_model import VAE_STRIDE, check_model_config, count_world_tokens
from theworld.model.configuration import TheWorldConfig
from theworld.model.four_bits import packed_weights, quantise
from theworld.model.modeling import TheWorldForConditionalGeneration
from theworld.model.processing import TheWorldProcessor
from theworld.model.weight_files import errors_only
from theworld.model.world_encoder import attach_world_encoder, read_vae_config

PROJECTOR_SEED = 17
EMBEDDING_ROWS = 65_536
"""Rows from which the size of the embeddings is measured; all of Gemma's would take seconds for the same figure."""


def load_processor(cfg: ModelConfig) -> TheWorldProcessor:
    """The processor that ``cfg`` asks for; reads no weights.

    Raises:
        UserError: the configuration cannot work, or Gemma's files are not there.
    """
    check_model_config(cfg)
    gemma = resolve_gemma(cfg.gemma, cfg.gemma_revision, weights=False)
    check_kind(gemma)
    return _processor(cfg, gemma)


def check_kind(gemma: Base) -> None:
    """Refuse another model than a Gemma 3 with vision, before its processor or a weight is looked for.

    Raises:
        UserError: says what it is.
    """
    try:
        settings = json.loads((gemma.folder / "config.json").read_text(encoding="utf-8"))
        kind = str(settings["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"model.gemma: {gemma.folder}: config.json cannot be read ({first_line(error)})") from error
    if kind == Gemma3TextConfig.model_type:
        raise UserError(
            f"model.gemma: {gemma.name} is a {kind}, which has no vision, as the 1B; expected a Gemma 3 with vision "
            "(4B, 12B, 27B)"
        )
    if kind != Gemma3Config.model_type or "vision_config" not in settings:
        raise UserError(f"model.gemma: {gemma.name} is a {kind}; expected a Gemma 3 with vision")
    if "quantization_config" in settings:
        raise UserError(
            f"model.gemma: {gemma.name} is quantised already (quantization_config in its config.json); name the model "
            "that it was made of, of which model.load_in_4bit keeps the layers in 4 bits"
        )


def _processor(cfg: ModelConfig, gemma: Base) -> TheWorldProcessor:
    try:
        plain = TheWorldProcessor.from_pretrained(gemma.folder)
    except (OSError, ValueError) as error:
        raise UserError(f"model.gemma: {gemma.folder} has no processor of Gemma 3: {first_line(error)}") from error
    assert isinstance(plain, Gemma3Processor)
    projector, side = cfg.projector, cfg.world_image_size // VAE_STRIDE
    tokens = count_world_tokens(projector.mode, projector.patch, side, projector.queries) if cfg.enable_world else 0
    return TheWorldProcessor(
        image_processor=plain.image_processor,
        tokenizer=plain.tokenizer,
        chat_template=plain.chat_template,
        image_seq_length=plain.image_seq_length,
        enable_world=cfg.enable_world,
        num_world_tokens=tokens,
        world_image_size=cfg.world_image_size,
    )


def build_config(cfg: ModelConfig, gemma: Base, vae: Base | None) -> TheWorldConfig:
    """The model's configuration from Gemma's, the VAE's and the YAML's.

    Raises:
        UserError: a base is of another kind, or the vocabulary has no room for the world tokens.
    """
    check_kind(gemma)
    gemma_config = Gemma3Config.from_pretrained(gemma.folder)
    settings = {
        key: value for key, value in gemma_config.to_dict().items() if key not in ("model_type", "architectures")
    }
    processor = _processor(cfg, gemma)
    config = TheWorldConfig(
        **settings,
        base={"gemma": {**gemma.record(), **({"form": FORM} if cfg.load_in_4bit else {})}},
        image_mean=processor.image_processor.image_mean,
        image_std=processor.image_processor.image_std,
        image_rescale_factor=processor.image_processor.rescale_factor,
    )
    if vae is None:
        return config
    rows, needed = config.text_config.vocab_size, max(processor.world_token_ids) + 1
    if needed > rows:
        raise UserError(
            f"model.gemma: {gemma.name}: the embedding has {rows} rows and the world tokens need {needed}; "
            "expected a Gemma 3 whose embedding is larger than its tokenizer's vocabulary, as the released ones are"
        )
    config.vae = read_vae_config(vae.folder)
    config.base["cosmos"] = vae.record()
    config.enable_world = True
    config.world_image_size = cfg.world_image_size
    config.projector_mode = cfg.projector.mode
    config.projector_architecture = cfg.projector.architecture
    config.projector_patch = cfg.projector.patch
    config.projector_queries = cfg.projector.queries
    ids = processor.world_token_ids
    config.start_of_world_token_id, config.end_of_world_token_id, config.world_token_id = ids
    return config


def load_shapes(
    cfg: ModelConfig,
    with_world_encoder: bool = True,
    frozen_dtype: torch.dtype | None = None,
    packed_in: torch.dtype = torch.uint8,
) -> TheWorldForConditionalGeneration:
    """The model that :func:`load_model` gives, on the meta device: shapes, dtypes and freezing without weights.

    Reads the configuration of the bases and their processor, which for a Hub repo is some 40 MB.

    Raises:
        UserError: the configuration cannot work, a base is not there, or nothing would train.
    """
    check_model_config(cfg)
    gemma = resolve_gemma(cfg.gemma, cfg.gemma_revision, weights=False)
    vae = resolve_vae(cfg.cosmos, cfg.cosmos_revision, weights=False) if cfg.enable_world else None
    config = build_config(cfg, gemma, vae)
    config.with_world_encoder = with_world_encoder and cfg.enable_world
    config._attn_implementation = cfg.attn_implementation
    with torch.device("meta"):
        model = TheWorldForConditionalGeneration(config)
    return prepare_parts(model, cfg, torch.float32, frozen_dtype, PROJECTOR_SEED, packed_in=packed_in)


def load_model(
    cfg: ModelConfig,
    dtype: torch.dtype = torch.float32,
    seed: int = PROJECTOR_SEED,
    with_world_encoder: bool = True,
    frozen_dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    packed_in: torch.dtype = torch.uint8,
) -> TheWorldForConditionalGeneration:
    """TheWorld with the weights of its bases, a new projector, and the freezing that ``cfg`` asks for; in eval mode.

    Args:
        cfg: the section ``model``.
        dtype: of all weights; with ``frozen_dtype`` only of those that train.
        seed: of the new projector's weights; the same on every rank.
        with_world_encoder: False leaves the VAE's encoder out, for training on latents computed before.
        frozen_dtype: of the parts that do not train; None: ``dtype``.
        device: where the model goes; None: it stays on the CPU. With ``frozen_dtype``, weights are cast there. Up to
            then they are the mapped files, which all processes of a machine share: eight ranks that each cast a whole
            Gemma 3 4B in their own memory would take 130 GB of it.
        packed_in: with ``cfg.load_in_4bit``, how the packed weights are stored: FSDP shards them as a type of floats.

    Raises:
        UserError: a base is missing, gated, cut short or of another kind; a weight is missing or unexpected; nothing
            would train.
    """
    check_model_config(cfg)
    gemma = resolve_gemma(cfg.gemma, cfg.gemma_revision)
    vae = resolve_vae(cfg.cosmos, cfg.cosmos_revision, weights=with_world_encoder) if cfg.enable_world else None
    config = build_config(cfg, gemma, vae)
    config.with_world_encoder = False  # Gemma's file has none; it is attached below
    try:
        with errors_only():  # it warns of the projector's missing weights, which are drawn below
            model = TheWorldForConditionalGeneration.from_pretrained(
                gemma.folder,
                config=config,
                # As in the file, so that four billion frozen weights never take twice their memory, and 4 bits are
                # made of nothing else.
                dtype=dtype if frozen_dtype is None and not cfg.load_in_4bit else "auto",
                attn_implementation=cfg.attn_implementation,
                may_miss="model.world_projector.",
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model.gemma: cannot load {gemma.folder}: {first_line(error)}") from error
    assert isinstance(model, TheWorldForConditionalGeneration)
    if vae is not None:
        assert model.model.world_projector is not None
        model.model.world_projector.to(dtype)
        initialise_projector(model, seed)
        if with_world_encoder:
            attach_world_encoder(model, vae, dtype)
    if cfg.load_in_4bit:
        frozen_dtype = frozen_dtype or dtype
    return prepare_parts(model, cfg, dtype, frozen_dtype, seed, device, packed_in)


def prepare_parts(
    model: TheWorldForConditionalGeneration,
    cfg: ModelConfig,
    dtype: torch.dtype,
    frozen_dtype: torch.dtype | None,
    seed: int,
    device: torch.device | None = None,
    packed_in: torch.dtype = torch.uint8,
) -> TheWorldForConditionalGeneration:
    """Four bits, device, adapters, recomputation, freezing and each part's precision as in :func:`load_model`; eval
    mode."""
    if cfg.load_in_4bit:
        assert cfg.lora is not None
        # Before the rest moves, and one by one: the device never holds the whole layers.
        quantise(model, cfg.lora, packed_in, frozen_dtype or dtype, device)
    if device is not None:
        model.to(device)  # pyright: ignore[reportArgumentType]
    if cfg.lora is not None:
        add_adapters(model, cfg.lora, seed)
        model.config.lora = asdict(cfg.lora)
    if cfg.activation_checkpointing:
        recompute_layers(model)
    apply_freezing(model, cfg.freeze)
    if frozen_dtype is not None:
        packed = packed_weights(model)
        for part in model.freezable_parts().values():
            own = [(name, one) for name, one in part.named_parameters() if not is_adapter(name) and one not in packed]
            trains = any(one.requires_grad for _, one in own)
            # Adapters are float32 already, by peft, whatever the precision of their layer.
            cast_parameters((one for _, one in own), dtype if trains else frozen_dtype)
    return model.eval()


@torch.no_grad()
def initialise_projector(model: TheWorldForConditionalGeneration, seed: int) -> None:
    """A new projector whose tokens are as large as the words of the language model (see ``reset_parameters``).

    The start and end of the world begin as copies of the start and end of an image.
    """
    projector = model.model.world_projector
    assert projector is not None
    embedding = model.get_input_embeddings()
    scale = math.sqrt(model.config.text_config.hidden_size)
    words = embedding.weight[:EMBEDDING_ROWS].float()
    projector.reset_parameters(
        rms=float(words.pow(2).mean().sqrt()) * scale, generator=torch.Generator().manual_seed(seed)
    )
    ids = torch.tensor([model.config.boi_token_index, model.config.eoi_token_index], device=embedding.weight.device)
    start, end = embedding(ids)
    projector.start.copy_(start)
    projector.end.copy_(end)


def apply_freezing(model: TheWorldForConditionalGeneration, freeze: FreezeConfig) -> None:
    """Set which parameters train.

    Raises:
        UserError: nothing would train.
    """
    frozen = {
        "vision_tower": freeze.vision,
        "multi_modal_projector": freeze.vision,
        "language_model": freeze.language,
        "lm_head": freeze.language,
        "world_encoder": freeze.vae,
    }
    for name, part in model.freezable_parts().items():
        part.requires_grad_(not frozen[name])
    if model.model.world_projector is not None:
        model.model.world_projector.requires_grad_(not freeze.projector)
    for weight in adapter_weights(model).values():
        weight.requires_grad_(True)
    if model.model.world_encoder is not None:
        for name, parameter in model.model.world_encoder.named_parameters():
            # Convolutions over time, which a single frame never reaches: without a gradient, DDP would wait for them.
            if "time_conv" in name:
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("nothing to train: every part of the model is frozen (model.freeze)")
    model.train(model.training)
