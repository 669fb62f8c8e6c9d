"""A data set of samples with several pictures, one and none."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from theworld.config.schema import ConvertConfig
from theworld.data.shards.convert import convert

BOX = [20.0, 30.0, 60.0, 50.0]


def talk(*texts: str) -> list[dict[str, str]]:
    """Questions and answers by turns."""
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def several_pictures(folder: Path) -> Path:
    """The folder of five samples of two, three, one, no and two pictures: 90 x 60 pixels, as red as 30 times their
    number."""
    above = ("Is <mask> above <mask>?", "Yes, Region [0] is above Region [1].")
    placed = (
        "<image>\nHow wide is <mask>?",
        "2 feet.",
        "Well?",
        "Yes.",
        "In <image> or <image>: how wide is <mask>?",
    )
    late = ("And what is <image>, and <image>?", "A wall.")
    wide = ("How wide is <mask>?", "Region [0] is 2 feet wide.")
    entries = [
        {"id": "two", "images": ["0.png", "1.png"], "conversations": talk(*above, *wide), "bbox": [[BOX], [BOX, BOX]]},
        {
            "id": "three",
            "images": ["2.png", "3.png", "4.png"],
            "conversations": talk(*placed, "3 feet."),
            "bbox": [[BOX], [], [BOX]],
        },
        {"id": "one", "images": ["5.png"], "conversations": talk(*wide), "bbox": [BOX]},
        {"id": "text", "conversations": talk("2 + 2?", "4.")},
        {"id": "late", "images": ["0.png", "1.png"], "conversations": talk(*wide, *late), "bbox": [[BOX], []]},
    ]
    (folder / "raw").mkdir()
    for number in range(6):
        Image.new("RGB", (90, 60), (30 * number, 90, 120)).save(folder / f"raw/{number}.png")
    (folder / "raw/entries.json").write_text(json.dumps(entries))
    raw, out = folder / "raw", folder / "mds"
    assert convert(ConvertConfig(json=str(raw / "entries.json"), images=str(raw), out=str(out), workers=1)).written == 5
    return out
