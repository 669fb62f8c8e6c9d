"""Labels: none over another, none over a small box, and placed quickly however many there are."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from theworld.data.samples.boxes import clamp_box, label_size, place_labels
from theworld.data.samples.label_places import LabelPlaces, Rectangle, overlaps
from theworld.data.samples.regions import unique_regions


def places_of(boxes: list[Rectangle], width: int, height: int) -> list[Rectangle]:
    return place_labels([f"Region [{number}]" for number in range(len(boxes))], boxes, width, height)[1]


def hidden_shares(boxes: list[Rectangle], labels: list[Rectangle]) -> np.ndarray:
    """(n,) share of each box that is under labels of other regions."""
    shared = overlaps(np.array(boxes), np.array(labels))
    np.fill_diagonal(shared, 0)
    sides = np.array(boxes)[:, 2:] - np.array(boxes)[:, :2]
    return shared.sum(axis=1) / sides.prod(axis=1)


def test_overlap_is_counted_in_pixels() -> None:
    spots = np.array([[0, 0, 4, 4], [10, 10, 12, 13]])
    assert overlaps(spots, np.array([[2, 3, 9, 9], [4, 0, 5, 5], [0, 0, 99, 99]])).tolist() == [[2, 0, 16], [0, 0, 6]]


def test_a_label_rather_goes_elsewhere_than_over_a_small_box() -> None:
    width, height = label_size("Region [0]", 7)
    large, small = (100, 100, 300, 200), (102, 100 - height + 2, 102 + width // 2, 98)
    labels = places_of([large, small], 336, 336)
    assert hidden_shares([large, small], labels).max() == 0
    alone = LabelPlaces([large], 336, 336).place(0, (width, height))
    assert alone == (100, 100 - height, 100 + width, 100)  # where it would have stood


def test_on_the_built_in_sample_no_box_is_hidden_by_more_than_a_quarter(raw_sample: Path) -> None:
    boxes_seen = 0
    for entry in json.loads((raw_sample / "openspatial.json").read_text()):
        with Image.open(raw_sample / "images" / f"{entry['filename']}.jpg") as picture:
            width, height = picture.size
        boxes = [clamp_box(region.box, width, height) for region in unique_regions(entry["bbox"])]
        if boxes:
            assert hidden_shares(boxes, places_of(boxes, width, height)).max() <= 0.25
            boxes_seen += len(boxes)
    assert boxes_seen > 100


def test_four_hundred_labels_are_placed_in_no_time_and_none_over_another() -> None:
    """2.8 s on an idle core when every place was compared with every label."""
    random = np.random.default_rng(0)
    corners = random.integers(0, (900, 600), (400, 2))
    boxes = [tuple(map(int, (*corner, *(corner + random.integers(5, 120, 2))))) for corner in corners]
    started = time.process_time()
    labels = np.array(places_of(boxes, 1024, 768))  # type: ignore[arg-type]
    assert time.process_time() - started < 2.0
    shared = overlaps(labels, labels)
    np.fill_diagonal(shared, 0)
    assert not shared.any()
