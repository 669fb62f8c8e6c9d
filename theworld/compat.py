"""What is not the same in the two sets of versions that this recipe runs with, and nothing else.

`constraints.txt` pins transformers 4.57 and huggingface_hub 0.36, `constraints-next.txt` transformers 5.24 and
huggingface_hub 2.4. The rest of the code is the same for both; each line here says which it is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from json import JSONDecodeError
from typing import Any

NEW_TRANSFORMERS = int(version("transformers").partition(".")[0]) >= 5
"""False: constraints.txt. True: constraints-next.txt."""
NEW_HUB = int(version("huggingface_hub").partition(".")[0]) >= 2
"""False: constraints.txt. True: constraints-next.txt."""


# --- torch -----------------------------------------------------------------------------------------------------------


def finds_microbatch_with_fsdp_1() -> bool:
    """Whether Composer can look for the largest microbatch under FSDP 1.

    It replaces a method of torch for that, and defines what to replace it with for torch 2.6 to 2.7.0 only; with a
    later torch the search ends in a NameError.
    """
    return hasattr(import_module("composer.trainer._patch_pytorch"), "unshard_with_sync")


# --- Gemma 3 ---------------------------------------------------------------------------------------------------------

VISION_LAYERS = "vision_tower.encoder.layers" if NEW_TRANSFORMERS else "vision_tower.vision_model.encoder.layers"
"""Where Gemma 3's body has the layers of its vision tower; 5 has one module less around them."""
CACHE = "cache" if NEW_TRANSFORMERS else "past_key_values"
"""What ``forward`` and ``generate`` call the keys and values of what was read. transformers 5 also takes the name of 4,
with a warning, until 5.40."""
IMAGES_OF_OUTPUT = "image_outputs" if NEW_TRANSFORMERS else "image_hidden_states"
"""Field of the model's output for what ``get_image_features`` gave. In 5 the other name is a property that warns."""


OF_VISION_5 = re.compile(r"\.vision_tower\.(?!vision_model\.)")


def cache_as_named(past: Any) -> dict[str, Any]:
    """The cache under the name that Gemma 3's own ``forward`` has for it; nothing where there is none."""
    return {} if past is None else {CACHE: past}


def image_features(found: Any) -> Any:
    """The features (B, N, hidden) in what Gemma 3's ``get_image_features`` gives."""
    return found.pooler_output if NEW_TRANSFORMERS else found  # 5: all that the vision tower gives; 4: the features


def is_first_step(settings: dict[str, Any]) -> bool:
    """Whether ``generate`` is about to have the prompt read, by what it gives ``prepare_inputs_for_generation``."""
    if NEW_TRANSFORMERS:  # 5
        return bool(settings.get("is_first_iteration")) or not settings.get("use_cache", True)
    place = settings.get("cache_position")  # 4: where the tokens that are next lie
    return place is None or bool(place[0] == 0)


def as_named_here(weight: str) -> str:
    """The name of a model's weight, as 4 or 5 has saved it, in this release."""
    if NEW_TRANSFORMERS:  # 5
        return weight.replace(".vision_tower.vision_model.", ".vision_tower.")
    return OF_VISION_5.sub(".vision_tower.vision_model.", weight)  # 4


def layer_inputs(rotation: Any) -> dict[str, Any]:
    """What a decoder layer takes for the angles of its positions, ``rotation`` being (cosine, sine)."""
    if NEW_TRANSFORMERS:  # 5: those of the layer's own kind
        return {"position_embeddings": rotation}
    return {"position_embeddings_global": rotation, "position_embeddings_local": rotation}  # 4


def recompute_layers(model: Any) -> None:
    """Let the layers' activations be computed again in the backward pass, where a gradient needs them."""
    if NEW_TRANSFORMERS:  # 5
        model.activation_checkpointing_enable({"use_reentrant": False})
        # It has every embedding ask for gradients, which a frozen vision tower would then compute for nothing.
        model.disable_input_require_grads()
    else:  # 4
        model.gradient_checkpointing_enable({"use_reentrant": False})


def share_weight_names(model_type: str) -> None:
    """Let ``from_pretrained`` rename the weights of a model of this type as it does Gemma 3's.

    The released files have the names of old releases. transformers 4 keeps the renaming in the class, which a subclass
    inherits; 5 keeps it by ``model_type``, and leaves out models that are not its own unless they are registered.
    """
    if NEW_TRANSFORMERS:  # 5
        conversion = import_module("transformers.conversion_mapping")
        names = conversion.get_checkpoint_conversion_mapping("gemma3")
        conversion.register_checkpoint_conversion_mapping(model_type, names, overwrite=True)


# 5 keeps the image processor's settings in processor_config.json, and reads those of 4 where they are; 4 has a file of
# its own for them.
IMAGE_PROCESSOR_FILES = () if NEW_TRANSFORMERS else ("preprocessor_config.json",)
"""What a saved processor has beside ``processor_config.json`` and the tokenizer's files."""


# --- The Hub's client ------------------------------------------------------------------------------------------------


def network_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises for a connection that fails, for an answer that refuses, and for one that is not the
    Hub's.

    The client is built on requests up to huggingface_hub 0.36, whose errors are OSErrors, that of an answer which is
    no JSON among them; on httpx2 from 2 on, whose are not.
    """
    if NEW_HUB:  # 2
        return (import_module("httpx2").HTTPError, JSONDecodeError)
    return (import_module("requests").RequestException,)  # 0.36


def use_hub_connections(connect: float, silent: float, counted: Callable[[int], None]) -> None:
    """Let the Hub's client open its connections with time limits, which it has none of by itself.

    Args:
        connect: seconds that a connection may take to open.
        silent: seconds without a byte after which it is given up.
        counted: called with the bytes of files as they are sent.
    """
    hub: Any = import_module("huggingface_hub")
    if NEW_HUB:  # 2
        hub.set_client_factory(lambda: _client(connect, silent, counted))
    else:  # 0.36
        hub.configure_http_backend(lambda: _session(connect, silent, counted))


def _client(connect: float, silent: float, counted: Callable[[int], None]) -> Any:
    """huggingface_hub 2: its own client with time limits, which counts the bytes of files that are sent."""
    httpx: Any = import_module("httpx2")

    class CountedStream(httpx.SyncByteStream):
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            for piece in self.stream:
                counted(len(piece))
                yield piece

        def close(self) -> None:
            self.stream.close()

    def count(request: Any) -> None:
        if request.method == "PUT" and not isinstance(request.stream, CountedStream):
            request.stream = CountedStream(request.stream)

    client = import_module("huggingface_hub.utils._http").default_client_factory()
    client.timeout = httpx.Timeout(silent, connect=connect)
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], count]}
    return client


class _CountedFile:
    """A file that requests sends, whose bytes are counted as they are read."""

    def __init__(self, file: Any, counted: Callable[[int], None]) -> None:
        self.file = file
        self.counted = counted

    def read(self, *size: int) -> bytes:
        """As the file's own."""
        content = self.file.read(*size)
        self.counted(len(content))
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _session(connect: float, silent: float, counted: Callable[[int], None]) -> Any:
    """huggingface_hub 0.36: a session with time limits on everything, which counts the bytes of files that are sent."""
    import requests
    from requests.adapters import HTTPAdapter

    class TimedAdapter(HTTPAdapter):
        def send(self, request: Any, *arguments: Any, **settings: Any) -> Any:  # type: ignore[override]
            if settings.get("timeout") is None:
                settings["timeout"] = (connect, silent)
            if request.method == "PUT" and hasattr(request.body, "read"):
                request.body = _CountedFile(request.body, counted)
            return super().send(request, *arguments, **settings)

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, TimedAdapter())
    return session
