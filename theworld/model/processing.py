"""Pictures and text to TheWorld's inputs: Gemma 3's processor with world tokens and world pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import AddedToken, BatchFeature, Gemma3Processor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import make_nested_list_of_images

from theworld.compat import NEW_TRANSFORMERS
from theworld.model.configuration import END_OF_WORLD, START_OF_WORLD, WORLD_TOKEN, WORLD_TOKENS
from theworld.model.pixels import normalize, to_unit_range

Picture = Image.Image | np.ndarray
"""An image, or the pixels of one in RGB: (H, W, 3) uint8."""
FILTERS = {int(Image.Resampling.BILINEAR): "bilinear", int(Image.Resampling.BICUBIC): "bicubic"}
"""Those that torch has for bytes, by Pillow's number."""


class TheWorldProcessor(Gemma3Processor):
    """Gemma 3's processor; with ``enable_world`` each picture also becomes a world sequence after ``<bos>``.

    ``<bos><start_of_world><world_soft_token>*N<end_of_world><start_of_turn>user ...``: one world sequence per
    ``<start_of_image>`` of the text, in the same order, all directly after ``<bos>`` (or in front, where the text
    has no ``<bos>`` because the tokenizer puts it there). Without pictures, or without ``enable_world``, it does
    what Gemma 3's processor does.

    Args:
        image_processor, tokenizer, chat_template, image_seq_length: Gemma 3's.
        enable_world: whether there are world tokens.
        num_world_tokens: N.
        world_image_size: S, side in pixels of the world picture.
    """

    if not NEW_TRANSFORMERS:
        image_processor_class = "Gemma3ImageProcessor"
    image_processor: Any
    tokenizer: Any
    chat_template: Any

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        chat_template: Any = None,
        image_seq_length: int = 256,
        enable_world: bool = False,
        num_world_tokens: int = 0,
        world_image_size: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template, image_seq_length, **kwargs)
        self.enable_world = enable_world
        self.num_world_tokens = num_world_tokens
        self.world_image_size = world_image_size
        if enable_world:
            # Tokens that the tokenizer already has keep their ids, so this changes nothing after a reload.
            added = [AddedToken(token, special=True, normalized=False) for token in WORLD_TOKENS]
            tokenizer.add_tokens(added, special_tokens=True)

    @property
    def world_sequence(self) -> str:
        """What stands for one picture's world in the text; empty without ``enable_world``."""
        if not self.enable_world:
            return ""
        return START_OF_WORLD + WORLD_TOKEN * self.num_world_tokens + END_OF_WORLD

    @property
    def world_token_ids(self) -> tuple[int, int, int]:
        """Ids of start, end and soft token, in the order that :class:`TheWorldConfig` has them."""
        start, end, soft = self.tokenizer.convert_tokens_to_ids(list(WORLD_TOKENS))
        return start, end, soft

    def insert_world(self, text: str, worlds: int | None = None) -> str:
        """``text`` with ``worlds`` world sequences (None: one per ``<start_of_image>``) after a leading ``<bos>``."""
        sequences = self.world_sequence * (text.count(self.boi_token) if worlds is None else worlds)
        bos = self.tokenizer.bos_token
        return bos + sequences + text.removeprefix(bos) if text.startswith(bos) else sequences + text

    def expand_placeholders(self, text: str, worlds: int | None = None) -> str:
        """``text`` as it is tokenized: world sequences inserted (:meth:`insert_world`), each ``<start_of_image>`` made
        an image sequence."""
        return self.insert_world(text, worlds).replace(self.boi_token, self.full_image_sequence)

    def token_type_ids(self, input_ids: Tensor) -> Tensor:
        """1 where ``input_ids`` hold an image token (attended in both directions), 0 elsewhere; world tokens are 0."""
        return (input_ids == self.tokenizer.image_token_id).to(torch.long)

    def resize_images(self, images: Sequence[Picture], world: bool = True) -> dict[str, Tensor]:
        """Pictures to ``pixel_values`` (B, 3, H, W) and, with ``enable_world``, ``world_pixel_values`` (B, 3, S, S).

        Both uint8, a quarter of the bytes of what :meth:`preprocess_images` gives; the model normalises them itself,
        to the same values. Both are resized from the same RGB picture, aspect ratio not kept, the world's bicubically,
        filtered over the whole footprint of a target pixel, as Pillow does, so that fine texture does not alias.

        Args:
            images: one or more; as arrays they are RGB, (H, W, 3) uint8.
            world: False omits the second, for callers that have the latents.

        Raises:
            ValueError: no image.
        """
        if not images:
            raise ValueError("expected at least one image")
        pictures = [image if isinstance(image, np.ndarray) else _as_rgb(image) for image in images]
        gemma = self.image_processor
        if not (gemma.do_resize and gemma.do_rescale and gemma.do_normalize):
            raise ValueError("expected an image processor that resizes, rescales and normalizes")
        size = (gemma.size["width"], gemma.size["height"])
        result = {"pixel_values": _together([_resized(picture, size, gemma.resample) for picture in pictures])}
        if self.enable_world and world:
            result["world_pixel_values"] = world_pictures(pictures, self.world_image_size)
        return result

    def preprocess_images(self, images: Sequence[Picture], world: bool = True) -> dict[str, Tensor]:
        """What :meth:`resize_images` gives, normalised: float32.

        ``pixel_values`` equal those of ``Gemma3ImageProcessor`` within one grey level of the resized picture (two for
        one value in 100,000 at most), in less time; no pan-and-scan. ``world_pixel_values`` are in [-1, 1].

        Raises:
            ValueError: no image.
        """
        pixels = self.resize_images(images, world)
        gemma = self.image_processor
        result = {
            "pixel_values": normalize(pixels["pixel_values"], gemma.image_mean, gemma.image_std, gemma.rescale_factor)
        }
        if "world_pixel_values" in pixels:
            result["world_pixel_values"] = to_unit_range(pixels["world_pixel_values"])
        return result

    def __call__(  # type: ignore[override]
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Gemma 3's ``__call__``; with pictures and ``enable_world`` also ``world_pixel_values``.

        A text begins with one ``<bos>``, whether or not it had one, as a rendered chat template does. With
        ``add_special_tokens=False`` a text without one stays without.
        """
        texts = [text] if isinstance(text, str) else text
        if texts and all(isinstance(one, str) for one in texts):
            text, kwargs = self._with_one_bos(texts, kwargs)
        if images is None or not self.enable_world:
            return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)
        nested: Any = make_nested_list_of_images(self.image_processor.fetch_images(images))
        rgb = [[_as_rgb(image) for image in pictures] for pictures in nested]
        if not text:
            text = [" ".join([self.boi_token] * len(pictures)) for pictures in rgb]
        features = super().__call__(
            images=rgb,  # type: ignore[arg-type]
            text=[self.insert_world(one) for one in text],
            **kwargs,
        )
        pictures = [picture for of_one_text in rgb for picture in of_one_text]
        features["world_pixel_values"] = to_unit_range(world_pictures(pictures, self.world_image_size))
        return features

    def _with_one_bos(self, texts: Sequence[str], settings: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """Texts that begin with their ``<bos>``, and settings that keep the tokenizer from adding another."""
        nested = settings.get("text_kwargs")
        adds = {**settings, **(nested or {})}.get("add_special_tokens", True)
        bos = self.tokenizer.bos_token
        begun = []
        for text in texts:
            rest = text
            while rest.startswith(bos):
                rest = rest.removeprefix(bos)
            begun.append(bos + rest if adds or rest != text else rest)
        settings = {name: value for name, value in settings.items() if name != "add_special_tokens"}
        if nested is None:
            return begun, {**settings, "add_special_tokens": False}
        return begun, {**settings, "text_kwargs": {**nested, "add_special_tokens": False}}

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs that ``__call__`` makes."""
        names = super().model_input_names
        return [*names, "world_pixel_values"] if self.enable_world else names


def without_world(processor: TheWorldProcessor) -> TheWorldProcessor:
    """The same processor, but pictures get no world tokens."""
    return TheWorldProcessor(
        processor.image_processor, processor.tokenizer, processor.chat_template, processor.image_seq_length
    )


def world_pictures(pictures: Sequence[Picture], side: int) -> Tensor:
    """RGB pictures to (B, 3, side, side) uint8, as the world encoder takes them."""
    return _together([_resized(picture, (side, side), Image.Resampling.BICUBIC) for picture in pictures])


def _together(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (3, H, W) as (B, 3, H, W). One alone, as the loader has it, is not copied."""
    return pictures[0][None] if len(pictures) == 1 else torch.stack(tuple(pictures))


def _resized(picture: Picture, size: tuple[int, int], resample: int) -> Tensor:
    """A picture at (width, height) as uint8 (3, height, width).

    Filters that torch has for bytes are its own: they take a third of Pillow's time, and give the same values within
    one grey level, two for at most one value in 100,000.
    """
    width, height = size
    if resample in FILTERS:
        pixels = torch.from_numpy(picture if isinstance(picture, np.ndarray) else np.array(picture))
        if pixels.shape[:2] == (height, width):
            return pixels.permute(2, 0, 1).contiguous()
        found = interpolate(pixels.permute(2, 0, 1)[None], (height, width), mode=FILTERS[resample], antialias=True)
        return found[0]
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    return torch.from_numpy(np.array(image.resize(size, resample=Image.Resampling(resample)))).permute(2, 0, 1)


def _as_rgb(image: Any) -> Image.Image:
    """Whatever transformers takes for an image, as an RGB picture."""
    picture = image if isinstance(image, Image.Image) else to_pil_image(image)
    return picture if picture.mode == "RGB" else picture.convert("RGB")
