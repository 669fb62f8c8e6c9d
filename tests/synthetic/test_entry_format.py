"""The entries and pictures have the form of OpenSpatialDataset."""

from __future__ import annotations

import io
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from theworld.synthetic import Sample, describe, filename
from theworld.synthetic.scene import COLOURS

MENTION = "<mask> <depth>"


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [describe(17, index) for index in range(60)]


@pytest.fixture(scope="module")
def entries(samples: list[Sample]) -> list[dict]:
    return [sample.entry() for sample in samples]


@pytest.fixture(scope="module")
def jpegs(samples: list[Sample]) -> list[bytes]:
    return [sample.jpeg() for sample in samples]


def test_keys_and_conversations(entries: list[dict]) -> None:
    for entry in entries:
        assert list(entry) == ["filename", "conversations", "rle", "bbox"]
        assert re.fullmatch(r"[0-9a-f]{16}", entry["filename"])
        talk = entry["conversations"]
        assert [turn["from"] for turn in talk] == ["human", "gpt"] * (len(talk) // 2)
        assert 9 <= len(talk) // 2 <= 11
        assert talk[0]["value"].startswith("<image>\n")
        assert sum(turn["value"].count("<image>") for turn in talk) == 1
        assert not any("<mask>" in turn["value"] or "<depth>" in turn["value"] for turn in talk[1::2])


def test_one_box_and_one_mask_a_mention(entries: list[dict]) -> None:
    for entry in entries:
        questions = [turn["value"] for turn in entry["conversations"][::2]]
        mentions = sum(question.count("<mask>") for question in questions)
        assert mentions == sum(question.count(MENTION) for question in questions)
        assert 17 <= mentions <= 20
        assert len(entry["bbox"]) == len(entry["rle"]) == mentions


def test_answers_cite_regions_of_their_own_turn(entries: list[dict]) -> None:
    for entry in entries:
        talk = entry["conversations"]
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            cited = [int(number) for number in re.findall(r"Region \[(\d+)\]", answer["value"])]
            assert all(number < question["value"].count("<mask>") for number in cited)


def test_regions_repeat_with_their_box_and_mask(samples: list[Sample], entries: list[dict]) -> None:
    for sample, entry in zip(samples, entries, strict=True):
        by_region: dict[int, set[tuple]] = {}
        for region, box, rle in zip(sample.mentions, entry["bbox"], entry["rle"], strict=True):
            by_region.setdefault(region.index, set()).add((*box, rle["counts"]))
        assert all(len(kinds) == 1 for kinds in by_region.values())
        assert len(set().union(*by_region.values())) == len(by_region), "two regions look the same"
        assert 3 <= len(by_region) < len(entry["bbox"])


def test_irregular_texts_occur(entries: list[dict]) -> None:
    found: Counter[str] = Counter()
    for entry in entries:
        talk = entry["conversations"]
        for human, gpt in zip(talk[::2], talk[1::2], strict=True):
            question, answer = human["value"], gpt["value"]
            masks = question.count("<mask>")
            found["no region cited"] += masks > 0 and "Region" not in answer
            found["no mask"] += masks == 0
            found["one region, two masks"] += masks == 2 and "shelf" in question and "Region [1]" not in answer
            found["trailing space"] += question.endswith(" ") or answer.endswith(" ")
    assert len(found) == 4
    assert min(found.values()) >= 3


def test_masks_decode_and_lie_in_their_boxes(samples: list[Sample], entries: list[dict]) -> None:
    for sample, entry in zip(samples, entries, strict=True):
        scene = sample.scene
        for box, rle in zip(entry["bbox"], entry["rle"], strict=True):
            assert rle["size"] == [scene.height, scene.width]
            mask = coco_mask.decode(rle)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            tight = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            assert box[0] <= tight[0]
            assert box[1] <= tight[1]
            assert box[2] >= tight[2]
            assert box[3] >= tight[3]
            assert np.abs(np.subtract(box, tight)).max() < 2
    assert any(character in rle["counts"] for entry in entries for rle in entry["rle"] for character in "[]\\")


def test_boxes_touch_and_sometimes_exceed_the_border(samples: list[Sample], entries: list[dict]) -> None:
    touching = exceeding = total = whole_numbers = 0
    for sample, entry in zip(samples, entries, strict=True):
        for x0, y0, x1, y1 in entry["bbox"]:
            margins = (x0, y0, sample.scene.width - x1, sample.scene.height - y1)
            total += 1
            touching += min(margins) <= 0
            exceeding += min(margins) < 0
            whole_numbers += all(float(value).is_integer() for value in (x0, y0, x1, y1))
    assert 0.02 * total < touching < 0.4 * total
    assert 0 < exceeding < 0.15 * total
    assert whole_numbers == 0


def test_pictures_have_realistic_sizes(samples: list[Sample], jpegs: list[bytes]) -> None:
    sizes = [len(jpeg) for jpeg in jpegs]
    assert min(sizes) > 70_000
    assert max(sizes) < 1_000_000
    assert 240_000 < float(np.mean(sizes)) < 360_000
    longest = [max(sample.scene.width, sample.scene.height) for sample in samples]
    assert longest.count(1024) > 0.85 * len(samples)
    portrait = sum(sample.scene.height > sample.scene.width for sample in samples)
    assert 0.05 * len(samples) < portrait < 0.5 * len(samples)


def test_pictures_are_baseline_jpegs_of_the_scene(samples: list[Sample], jpegs: list[bytes]) -> None:
    profiles = 0
    for sample, jpeg in zip(samples, jpegs, strict=True):
        with Image.open(io.BytesIO(jpeg)) as image:
            image.load()
            assert image.format == "JPEG"
            assert not image.info.get("progressive")
            assert image.size == (sample.scene.width, sample.scene.height)
            assert image.mode == ("L" if sample.scene.gray else "RGB")
            assert not image.getexif()
            profiles += "icc_profile" in image.info
    assert 0 < profiles < len(samples)


def test_some_pictures_are_grayscale() -> None:
    gray = next(sample for index in range(400) if (sample := describe(17, index, 128)).scene.gray)
    with Image.open(io.BytesIO(gray.jpeg())) as image:
        assert image.mode == "L"
    assert not any(colour in turn.question for turn in gray.turns for colour in COLOURS)


def test_masks_show_objects_of_the_named_colour(samples: list[Sample], entries: list[dict], jpegs: list[bytes]) -> None:
    """The mask, the name and the picture speak of the same object, in whatever light it stands."""
    lights = np.linspace(0.8, 1.15, 8)[:, None, None]
    palette = lights * np.array(list(COLOURS.values()))
    for sample, entry, jpeg in zip(samples, entries, jpegs, strict=True):
        if sample.scene.gray:
            continue
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)))
        for region, rle in zip(sample.mentions, entry["rle"], strict=True):
            colour = np.median(pixels[coco_mask.decode(rle) > 0], axis=0)
            nearest = list(COLOURS)[int(np.abs(palette - colour).sum(axis=2).min(axis=0).argmin())]
            assert nearest == region.thing.colour


def test_a_sample_depends_on_seed_index_and_size_alone() -> None:
    first = describe(5, 7, 200)
    describe(6, 8, 300).jpeg()
    again = describe(5, 7, 200)
    assert first.entry() == again.entry()
    assert first.jpeg() == again.jpeg()
    assert first.entry() != describe(6, 7, 200).entry()
    assert first.entry() != describe(5, 8, 200).entry()


@pytest.mark.parametrize("size", [64, 128, 2048])
def test_other_sizes(size: int) -> None:
    for index in range(3):
        sample = describe(1, index, size)
        assert max(sample.scene.width, sample.scene.height) <= size
        with Image.open(io.BytesIO(sample.jpeg())) as image:
            assert image.size == (sample.scene.width, sample.scene.height)


def test_file_names_are_unique() -> None:
    names = {filename(17, index) for index in range(50_000)}
    assert len(names) == 50_000
    assert names.isdisjoint(filename(18, index) for index in range(1000))
