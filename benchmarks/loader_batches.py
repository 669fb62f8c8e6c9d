"""What the contenders of :mod:`benchmarks.loader` make of raw samples: the same tensors, in three ways.

A raw sample is a dictionary with ``id``, ``image`` (a JPEG's bytes), ``width``, ``height``, ``conversations`` and
``bbox``. A batch is a dictionary of tensors, and ``sample_ids``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg
from transformers import Gemma3ImageProcessor, Gemma3ImageProcessorFast

from tests.helpers.drawing import draw_with_pillow
from theworld.config.schema import ModelConfig
from theworld.data.batches.collate import Collator
from theworld.data.batches.sample_encoder import SampleEncoder, messages_of
from theworld.data.samples import read_turns
from theworld.data.samples.regions import unique_regions
from theworld.labels import IGNORE
from theworld.model import TheWorldProcessor, load_processor
from theworld.train.data import SampleTransform

LENGTH = 4096
SIDE, WORLD_SIDE, SOFT_TOKENS = 896, 512, 256
ANSWER_BEGINS, ANSWER_ENDS = "<start_of_turn>model\n", "<end_of_turn>"
PICTURES = ("pixel_values", "world_pixel_values")

Sample = dict[str, Any]
Batch = dict[str, Any]
Collate = Callable[[Sequence[Sample]], Batch]


def processor_of_real_size(gemma: str) -> TheWorldProcessor:
    """The processor with the released sizes."""
    processor = load_processor(ModelConfig(gemma=gemma, cosmos="builtin:tiny", world_image_size=WORLD_SIDE))
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    processor.image_seq_length = processor.num_world_tokens = SOFT_TOKENS
    soft = str(processor.image_token)
    processor.full_image_sequence = re.sub(f"({re.escape(soft)})+", soft * SOFT_TOKENS, processor.full_image_sequence)
    return processor


def collate_bare(samples: Sequence[Sample]) -> Batch:
    """Decode, and resize twice; no boxes, no text."""
    made: dict[str, list[torch.Tensor]] = {name: [] for name in PICTURES}
    for sample in samples:
        pixels = decode_jpeg(torch.frombuffer(bytearray(sample["image"]), dtype=torch.uint8), mode=ImageReadMode.RGB)
        assert isinstance(pixels, torch.Tensor)
        for name, side, mode in zip(PICTURES, (SIDE, WORLD_SIDE), ("bilinear", "bicubic"), strict=True):
            made[name].append(interpolate(pixels[None], (side, side), mode=mode, antialias=True)[0])
    stacked = {name: torch.stack(pictures) for name, pictures in made.items()}
    return {**stacked, "sample_ids": [sample["id"] for sample in samples]}


class ByTheWorld:
    """This recipe's transform and collator."""

    def __init__(self, processor: TheWorldProcessor) -> None:
        self.transform = SampleTransform(SampleEncoder(processor, LENGTH), draw_bboxes=True)
        self.collator = Collator(processor)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return self.collator([self.transform(sample, epoch=0) for sample in samples])


class ByTransformers:
    """What a collator around transformers' processor does: Pillow decodes and draws, the chat template is rendered and
    tokenized, the pictures are resized and normalised, the world's by Pillow; labels are found by the answers' frame.

    Args:
        processor: for template and tokenizer.
        slow: Pillow resizes, as the processor does unless it is told otherwise; else torchvision.
    """

    def __init__(self, processor: TheWorldProcessor, slow: bool) -> None:
        self.processor = processor
        with tempfile.TemporaryDirectory() as folder:
            processor.image_processor.save_pretrained(folder)
            kind = Gemma3ImageProcessor if slow else Gemma3ImageProcessorFast
            self.images: Any = kind.from_pretrained(Path(folder))
        self.frame = [self.ids(text) for text in (ANSWER_BEGINS, ANSWER_ENDS)]

    def ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        pictures = [self.picture(sample) for sample in samples]
        texts = [self.text(sample) for sample in samples]
        settings: Any = {"add_special_tokens": False, "padding": True, "padding_side": "right", "return_tensors": "pt"}
        batch: Batch = dict(self.processor.tokenizer(texts, **settings))
        batch["labels"] = self.labels(batch["input_ids"])
        batch["token_type_ids"] = self.processor.token_type_ids(batch["input_ids"])
        batch["pixel_values"] = self.images(pictures, return_tensors="pt")["pixel_values"]
        small = [picture.resize((WORLD_SIDE, WORLD_SIDE), Image.Resampling.BICUBIC) for picture in pictures]
        world = torch.stack([torch.from_numpy(np.array(picture)) for picture in small])
        batch["world_pixel_values"] = world.permute(0, 3, 1, 2).float() / 127.5 - 1
        return {**batch, "sample_ids": [sample["id"] for sample in samples]}

    def picture(self, sample: Sample) -> Image.Image:
        with Image.open(BytesIO(sample["image"])) as file:
            return draw_with_pillow(file.convert("RGB"), unique_regions(sample["bbox"]))

    def text(self, sample: Sample) -> str:
        turns, _ = read_turns(sample["conversations"], sample["bbox"])
        messages = [one for place, turn in enumerate(turns) for one in messages_of(turn, place == 0)]
        settings: Any = {"tokenize": False}
        return self.processor.expand_placeholders(str(self.processor.apply_chat_template(messages, **settings)))

    def labels(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The answers with their ends; (B, L)."""
        labels = torch.full_like(input_ids, IGNORE)
        begins, ends = self.frame
        for row, ids in enumerate(input_ids.tolist()):
            place = 0
            while place < len(ids):
                if ids[place] == begins[0] and ids[place : place + len(begins)] == begins:
                    first = place + len(begins)
                    place = ids.index(ends[0], first) + len(ends)
                    labels[row, first:place] = input_ids[row, first:place]
                else:
                    place += 1
        return labels


def one_sample(batch: Batch, row: int) -> dict[str, torch.Tensor]:
    """A sample's tensors without padding."""
    kept = {name: batch[name][row].clone() for name in PICTURES}
    if "attention_mask" in batch:
        mask = batch["attention_mask"][row].bool()
        kept |= {name: batch[name][row][mask] for name in ("input_ids", "labels")}
    return kept


def grey_levels(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as grey levels, whatever they are: bytes, or normalised as Gemma's or the world's are, both to [-1, 1]."""
    return pixels.float() if pixels.dtype == torch.uint8 else (pixels.float() + 1) * 127.5


def compare(found: dict[str, dict[str, torch.Tensor]], expected: dict[str, dict[str, torch.Tensor]]) -> tuple[str, str]:
    """Whether ids and labels are equal, and by how many grey levels pixels differ.

    Args:
        found, expected: sample id to its tensors (:func:`one_sample`).
    """
    if found.keys() != expected.keys():
        return "other samples", ""
    texts, far, values, most = True, 0, 0, 0.0
    for name, tensors in expected.items():
        for key, wanted in tensors.items():
            got = found[name].get(key)
            if got is None:
                texts = False
            elif key in PICTURES:
                apart = (grey_levels(got) - grey_levels(wanted)).abs()
                far, values, most = (
                    far + int((apart > 1.01).sum()),
                    values + apart.numel(),
                    max(most, float(apart.max())),
                )
            else:
                texts &= torch.equal(got, wanted)
    beyond = f", more than one for {far / values:.0e}" if far else ""
    return "equal" if texts else "not equal", f"{round(most)}{beyond}"
