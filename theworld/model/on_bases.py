"""A saved TheWorld that holds only what was trained, put back on its base models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from theworld.errors import UserError
from theworld.model.base import Base, download, resolve_gemma, resolve_vae
from theworld.model.configuration import TheWorldConfig

FILES = ["config.json", "model*.safetensors"]


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
    from theworld.model.weight_files import errors_only
    from theworld.model.world_encoder import attach_world_encoder

    gemma, vae = resolve_bases(config)
    config.partial_weights = False
    config.with_world_encoder = False
    with errors_only():  # it warns of the projector's missing weights, which come next
        model = cls.from_pretrained(gemma.folder, config=config, may_miss="model.world_projector.", **settings)
    if vae is not None:
        attach_world_encoder(model, vae, next(model.parameters()).dtype)
    put_over(model, weights, source)
    return model


@torch.no_grad()
def put_over(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights into the model; what the bases do not have must be among them.

    Raises:
        UserError: names a weight that is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    needed = {name for name in own if "world_projector." in name}
    wrong = {"missing": needed - weights.keys(), "unexpected": weights.keys() - own.keys()}
    wrong["of another shape"] = {name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape}
    for what, names in wrong.items():
        if names:
            raise UserError(f"{source}: {len(names)} weights {what}, for example {min(names)}")
    for name, weight in weights.items():
        own[name].copy_(weight)
