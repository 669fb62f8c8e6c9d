"""Latents are of pictures with boxes in one style; a change of the style must not go unseen."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import smoke_config
from theworld.data.latents.record import LatentRecord, resolve_record
from theworld.data.samples import draw_regions, unique_regions
from theworld.data.samples.boxes import DRAWING_STYLE
from theworld.data.shards.add_latents import add_latents
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.files import read_json, write_json

PIXELS = {2: "927d8a5956477122"}
"""Style -> hash of the picture below."""
BOXES = [[40, 30, 200, 180], [60, 50, 110, 90], [380, 300, 700, 20], [0, 0, 8, 8]]


def test_a_change_of_the_pixels_is_a_new_style() -> None:
    drawn = draw_regions(Image.new("RGB", (480, 360), (90, 120, 60)), unique_regions(BOXES))
    found = hashlib.sha256(drawn.tobytes()).hexdigest()[:16]
    assert PIXELS.get(DRAWING_STYLE) == found, "boxes look different: count DRAWING_STYLE up and note the hash here"


def test_the_record_tells_styles_apart_where_boxes_are_drawn(raw_sample: Path, tmp_path: Path) -> None:
    wanted, _vae = resolve_record(smoke_config(raw_sample, tmp_path / "mds").model, draw_bboxes=True, weights=False)
    assert wanted.drawing_style == DRAWING_STYLE
    old = {key: value for key, value in wanted.to_json().items() if key != "drawing_style"}
    before = LatentRecord.read("manifest", old)
    difference = before.difference(wanted)
    assert difference is not None
    assert difference.startswith(f"boxes are drawn in style {DRAWING_STYLE} now, but ")
    assert difference.endswith("boxes are in style 1")
    assert replace(before, draw_bboxes=False).difference(replace(wanted, draw_bboxes=False)) is None


def test_latents_of_another_style_are_not_mixed_in(raw_sample: Path, tmp_path: Path) -> None:
    config = smoke_config(raw_sample, tmp_path / "mds", "convert.workers=1")
    convert(config.convert)
    add_latents(config)
    record = tmp_path / "mds" / "world_latents" / "record.json"
    stored = read_json(record)
    assert stored is not None
    write_json(record, {key: value for key, value in stored.items() if key != "drawing_style"})
    with pytest.raises(UserError, match="whose boxes are in style 1"):
        add_latents(config)
