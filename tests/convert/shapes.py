"""Entries in the shapes of other data sets, written here, and what samples of them must say and show."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from theworld.config.schema import ConvertConfig
from theworld.data.shards.convert import convert
from theworld.data.shards.convert_report import Report
from theworld.data.shards.dataset import DataSet, read_shards
from theworld.data.shards.read_shard import OpenShard

WIDTH, HEIGHT = 80, 60
PICTURE = "a/b.jpg"
Box = tuple[float, float, float, float]
FIRST, SECOND = (10.0, 20.0, 30.0, 40.0), (40.0, 5.0, 70.0, 55.0)


def picture(number: int = 0, kind: str = "JPEG", size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A grey picture, of one grey for each number."""
    stream = io.BytesIO()
    Image.new("RGB", size, (90 + number, 90, 90)).save(stream, kind)
    return stream.getvalue()


def rle(box: Box) -> dict[str, Any]:
    """The mask of a filled box."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x1, y1, x2, y2 = map(int, box)
    pixels[y1:y2, x1:x2] = 1
    found: Any = coco_mask.encode(pixels)
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def llava(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


@dataclass(frozen=True)
class Shape:
    """One entry, the format that auto must take, and the sample.

    Attributes:
        turns: question and answer as they are trained on.
        boxes: of the regions that are drawn, in pixels, by their numbers.
    """

    format: str
    entry: dict[str, Any]
    turns: list[tuple[str, str]]
    boxes: list[Box] = field(default_factory=list)
    id: str = "a/b"
    category: str = ""


SHAPES = {
    "llava": Shape(
        "llava",
        {"id": 17, "image": PICTURE, "conversations": llava("<image>\nWhat is it?", "A wall.", "Grey?", "Yes.")},
        [("What is it?", "A wall."), ("Grey?", "Yes.")],
        id="17",
    ),
    "llava, one of images, without id": Shape(
        "llava", {"images": [PICTURE], "conversations": llava("What?\n<image>", "A wall.")}, [("What?", "A wall.")]
    ),
    "llava, masks and boxes in pixels": Shape(
        "llava",
        {
            "id": "x",
            "image": PICTURE,
            "conversations": llava("Is <mask> left of <mask>?", "Region [0] is.", "And <mask>?", "Region [0] is not."),
            "bbox": [FIRST, SECOND, SECOND],
        },
        [("Is Region [0] left of Region [1]?", "Region [0] is."), ("And Region [1]?", "Region [1] is not.")],
        [FIRST, SECOND],
        id="x",
    ),
    "llava, boxes as shares": Shape(
        "llava",
        {"image": PICTURE, "conversations": llava("How wide is <mask>?", "2 m."), "bbox": [[0.5, 0.5, 0.75, 1]]},
        [("How wide is Region [0]?", "2 m.")],
        [(40.0, 30.0, 60.0, 60.0)],
    ),
    "llava, regions by number": Shape(
        "llava",
        {
            "image": PICTURE,
            "conversations": llava("Is Region [1] near?", "Region [1] is.", "Region [0] or Region [1]?", "Region [0]."),
            "bbox": [FIRST, SECOND],
        },
        [("Is Region [0] near?", "Region [0] is."), ("Region [1] or Region [0]?", "Region [1].")],
        [SECOND, FIRST],
    ),
    "refspatial": Shape(
        "refspatial",
        {
            "id": "r1",
            "image": [PICTURE],
            "depth": ["a/b_depth.png"],
            "conversations": llava("<image>\nHow far is <mask> <depth>?", "Region [0] is 3 m away. [(0.1, 0.2)]"),
            "bbox": [FIRST],
            "rle": [rle(FIRST)],
        },
        [("How far is Region [0]?", "Region [0] is 3 m away. [(0.1, 0.2)]")],
        [FIRST],
        id="r1",
    ),
    "refspatial, points in the answer": Shape(
        "refspatial",
        {"image": [PICTURE], "depth": ["d.png"], "conversations": llava("<image>\nPoint at it.", "[(0.461, 0.527)]")},
        [("Point at it.", "[(0.461, 0.527)]")],
    ),
    "warehouse": Shape(
        "warehouse",
        {
            "id": "0f3",
            "image": PICTURE,
            "conversations": llava(
                "<image>\nIs the pallet <mask> left of <mask>?", "The pallet [Region 0] is left of [Region 1]."
            ),
            "rle": [rle(FIRST), rle(SECOND)],
            "category": "left_right",
            "normalized_answer": "left",
            "freeform_answer": "left",
        },
        [("Is the pallet Region [0] left of Region [1]?", "The pallet Region [0] is left of Region [1].")],
        [FIRST, SECOND],
        id="0f3",
        category="left_right",
    ),
    "messages": Shape(
        "messages",
        {
            "id": "m",
            "messages": [{"role": "system", "content": "Be short."}, *chat("<image>What?", "A wall.")],
            "images": [PICTURE],
        },
        [("Be short.\n\nWhat?", "A wall.")],
        id="m",
    ),
    "messages, of parts": Shape(
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A wall."}]},
            ]
        },
        [("What?", "A wall.")],
    ),
    "messages, boxes and points in the text": Shape(
        "messages",
        {
            "image": PICTURE,
            "width": WIDTH,
            "height": HEIGHT,
            "messages": chat(
                'How far is {"bbox_2d": [10, 20, 30, 40], "label": "the box"} from {"point_2d": [40, 30]}?',
                '{"bbox_2d": [10, 20, 30, 40]} is 2 m from {"bbox_2d": [1, 2, 3, 4]}.',
            ),
        },
        [
            (
                "How far is the box Region [0] from Region [1]?",
                'Region [0] is 2 m from {"bbox_2d": [1, 2, 3, 4]}.',
            )
        ],
        [FIRST, (39.2, 29.2, 40.8, 30.8)],
    ),
    "spatialrgpt_bench": Shape(
        "spatialrgpt_bench",
        {
            "id": "q1",
            "image_info": str({"file_path": PICTURE, "height": HEIGHT, "width": WIDTH}),
            "text_q": "How wide is Region [0]?",
            "conversations": str(llava("<image>\nHow wide is <mask> <depth>?", "Region [0] is 30.05 inches wide.")),
            "bbox": str([list(FIRST)]),
            "rle": str([rle(FIRST)]),
            "qa_info": str({"type": "quantitative", "category": "width_data"}),
        },
        [("How wide is Region [0]?", "Region [0] is 30.05 inches wide.")],
        [FIRST],
        id="q1",
        category="width_data",
    ),
    "captions": Shape(
        "captions", {"image": PICTURE, "caption": " A grey wall.\n"}, [("Describe this image.", "A grey wall.")]
    ),
}


class Set:
    """A folder with ``entries.json``, ``images/`` and, once converted, ``out/``."""

    def __init__(self, folder: Path, entries: list[Any], *images: str) -> None:
        self.json, self.images, self.out = (folder / name for name in ("entries.json", "images", "out"))
        self.images.mkdir(parents=True)
        self.json.write_text(json.dumps(entries))
        for number, name in enumerate(images):
            self.add(name, picture(number, "PNG" if name.endswith(".png") else "JPEG"))

    def add(self, name: str, data: bytes) -> None:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def convert(self, **changes: Any) -> Report:
        settings = {"json": str(self.json), "images": str(self.images), "out": str(self.out), "workers": 1}
        return convert(ConvertConfig(**(settings | changes)))

    def samples(self) -> list[dict[str, Any]]:
        """In their order, by Streaming's own readers. A StreamingDataset would open 700 files each time."""
        shards = [(folder, entry) for folder in DataSet(self.out).generations() for entry in read_shards(folder)]
        readers = [(OpenShard(folder, entry).reader, entry["samples"]) for folder, entry in shards]
        return [reader[place] for reader, samples in readers for place in range(samples)]

    def ids(self) -> list[str]:
        """Ids in the order of the generations' own lists."""
        return [line for path in sorted(self.out.glob("gen-*/ids.txt")) for line in path.read_text().splitlines()]

    def rejected(self) -> list[tuple[str, str]]:
        """Id and reason."""
        lines = map(json.loads, (self.out / "rejected.jsonl").read_text().splitlines())
        return [(line["id"], line["reason"]) for line in lines]
