"""A saved TheWorld that holds only what was trained, put back on its base models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from theworld.config.schema import LoraConfig
from theworld.errors import UserError
from theworld.model.adapter_files import WEIGHTS as ADAPTERS
from theworld.model.adapter_files import lora_of
from theworld.model.base import Base, download, resolve_gemma, resolve_vae
from theworld.model.check_four_bits import in_four_bits, require_bitsandbytes
from theworld.model.configuration import TheWorldConfig

FILES = ["config.json", "model*.safetensors", ADAPTERS]


def local_folder(source: str, revision: str | None) -> Path:
    """The folder with configuration and weights, fetched from the Hub if it is a repo's name.

    Raises:
        UserError: it is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    return download("from_pretrained", source, revision, FILES)


def resolve_bases(config: TheWorldConfig) -> tuple[Base, Base | None]:
    """The base models that the weights were trained on; the Cosmos VAE only if there is a world.

    Raises:
        UserError: one is not there, or holds other weights than it did then.
    """
    gemma = config.base["gemma"]
    found = resolve_gemma(gemma["name"], gemma.get("revision"))
    check_same("gemma", found, gemma)
    if not config.enable_world:
        return found, None
    cosmos = config.base["cosmos"]
    vae = resolve_vae(cosmos["name"], cosmos.get("revision"))
    check_same("cosmos", vae, cosmos)
    return found, vae


def check_same(part: str, found: Base, then: dict[str, Any]) -> None:
    """Refuse a base whose weights have changed; one that was recorded without its weights cannot be compared."""
    expected = then.get("fingerprint")
    if expected and found.record()["fingerprint"] != expected:
        raise UserError(f"{part}: {found.name} holds other weights than when the model was trained; get that revision")


def load_on_bases(cls: Any, source: str, config: TheWorldConfig, revision: str | None, **settings: Any) -> Any:
    """The whole model: base models, and over them the weights in ``source``.

    Args:
        cls: ``TheWorldForConditionalGeneration``.
        source: a folder, or ``OWNER/NAME`` on the Hub.
        config: that lies there, ``partial_weights`` true.
        revision: of the repo.
        settings: transformers' own, such as ``dtype``.

    Raises:
        UserError: a base is missing or another one, or a weight is missing, unexpected or of another shape.
    """
    from theworld.model.weight_files import read_weights

    return put_on_bases(cls, read_weights(local_folder(source, revision)), source, config, **settings)


def put_on_bases(cls: Any, weights: dict[str, Tensor], source: str, config: TheWorldConfig, **settings: Any) -> Any:
    """As :func:`load_on_bases`, with the weights that were trained at hand; ``source`` names them in errors."""
    from theworld.model.adapters import add_adapters
    from theworld.model.weight_files import errors_only
    from theworld.model.world_encoder import attach_world_encoder

    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"{source}: quantization_config in its config.json is nothing that is put on base models")
    packs, lora = in_four_bits(config.base["gemma"], source), None if config.lora is None else lora_of(config.lora)
    if packs:
        if lora is None:
            raise UserError(f"{source}: a base in 4 bits without adapters; its config.json has no lora")
        require_bitsandbytes(f"{source}: its base is in 4 bits, and")
    gemma, vae = resolve_bases(config)
    config.partial_weights = False
    config.with_world_encoder = False
    dtype = settings.pop("dtype", settings.pop("torch_dtype", None))
    with errors_only():  # it warns of the projector's missing weights, which come next
        model = cls.from_pretrained(
            gemma.folder,
            config=config,
            may_miss="model.world_projector.",
            **({"dtype": "auto"} if packs else {} if dtype is None else {"dtype": dtype}),
            **settings,
        )
    if packs:
        assert lora is not None
        pack(model, lora, dtype)
    if vae is not None:
        attach_world_encoder(model, vae, next(model.parameters()).dtype)
    if lora is not None:
        add_adapters(model, lora, seed=0)
    put_over(model, weights, source)
    return model.eval()  # peft's own layers begin in training mode, in which dropout drops


def pack(model: Any, lora: LoraConfig, dtype: torch.dtype | str | None) -> None:
    """Quantise a base as a run has done it, on a GPU where there is one, and give the others of its weights this type.

    Args:
        model: the base, as its files have it.
        lora: the adapters that will be on it.
        dtype: as transformers takes it; None: float32.
    """
    from theworld.model.cast import cast_parameters
    from theworld.model.four_bits import packed_weights, quantise

    if dtype == "auto":
        dtype = next(model.parameters()).dtype
    precision = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
    quantise(model, lora, precision=precision, on=torch.device("cuda") if torch.cuda.is_available() else None)
    packed = packed_weights(model)
    cast_parameters((one for one in model.parameters() if one not in packed), precision)


@torch.no_grad()
def put_over(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights into the model; what the bases do not have must be among them.

    Raises:
        UserError: names a weight that is missing, unexpected or of another shape.
    """
    from theworld.model.adapters import is_adapter

    own = model.state_dict()
    needed = {name for name in own if "world_projector." in name or is_adapter(name)}
    wrong = {"missing": needed - weights.keys(), "unexpected": weights.keys() - own.keys()}
    wrong["of another shape"] = {name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape}
    for what, names in wrong.items():
        if names:
            raise UserError(f"{source}: {len(names)} weights {what}, for example {min(names)}")
    for name, weight in weights.items():
        own[name].copy_(weight)
