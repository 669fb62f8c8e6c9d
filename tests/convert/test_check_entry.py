"""What makes an entry unusable, each with a reason of its own."""

from __future__ import annotations

from typing import Any

import pytest
from raw_folder import entry, name

from theworld.data.entries.check_entry import BadEntry, check_entry, image_id

TURNS = entry(2)["conversations"]


def test_a_good_entry_gives_its_id() -> None:
    assert check_entry(entry(5), keep_masks=True) == check_entry(entry(5), keep_masks=False) == name(5)


def test_boxes_may_be_inverted_beyond_the_image_and_absent() -> None:
    assert check_entry(entry(1, bbox=[[900, 5, -3.5, 1e6]]), False) == name(1)
    assert check_entry(entry(3), False) == name(3)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".JPG", ""])
def test_an_image_suffix_is_not_part_of_the_id(suffix: str) -> None:
    assert check_entry(entry(2, filename="ab.cd" + suffix), False) == "ab.cd"
    assert image_id("ab.tiff") == "ab.tiff"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"filename": None}, "entry lacks a key"),
        ({"filename": 7}, "entry lacks a key"),
        ({"filename": "../secret"}, "file name has a path in it"),
        ({"filename": "train/0001.jpg"}, "file name has a path in it"),
        ({"filename": "a\\b"}, "file name has a path in it"),
        ({"filename": ".."}, "file name has a path in it"),
        ({"filename": ""}, "file name cannot be one"),
        ({"filename": ".hidden"}, "file name cannot be one"),
        ({"filename": ".jpg"}, "file name cannot be one"),
        ({"filename": "a\x00b"}, "file name cannot be one"),
        ({"filename": "a\tb"}, "file name cannot be one"),
        ({"filename": "\ud800"}, "file name cannot be one"),
        ({"filename": "a" * 256}, "file name cannot be one"),
        ({"conversations": None}, "conversation is not pairs of question and answer"),
        ({"conversations": []}, "conversation is not pairs of question and answer"),
        ({"conversations": TURNS[:1]}, "conversation is not pairs of question and answer"),
        ({"conversations": TURNS[::-1]}, "conversation is not pairs of question and answer"),
        ({"conversations": [TURNS[0], "text"]}, "conversation turn lacks its text"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": None}]}, "conversation turn lacks its text"),
        ({"bbox": None}, "bbox is not a list of boxes"),
        ({"bbox": [[1, 2, 3, 4]]}, "fewer boxes than <mask> tokens"),
        ({"bbox": [[1, 2, 3, 4]] * 3}, "more boxes than <mask> tokens"),
        ({"bbox": [[1, 2, 3]] * 2}, "a box is not four numbers"),
        ({"bbox": [[1, 2, 3, "4"]] * 2}, "a box is not four numbers"),
        ({"bbox": [[1, 2, 3, True]] * 2}, "a box is not four numbers"),
        ({"bbox": [[1, 2, 3, float("inf")]] * 2}, "a box is not four numbers"),
        ({"bbox": [1, 2, 3, 4]}, "a box is not four numbers"),
    ],
)
def test_bad_entries(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadEntry) as caught:
        check_entry(entry(2, **changes), keep_masks=False)
    assert caught.value.reason == reason


@pytest.mark.parametrize("key", ["filename", "conversations", "bbox"])
def test_a_missing_key(key: str) -> None:
    raw = entry(2)
    del raw[key]
    with pytest.raises(BadEntry) as caught:
        check_entry(raw, keep_masks=False)
    assert caught.value.reason == "entry lacks a key"
    assert key in caught.value.detail


def test_masks_are_needed_only_when_kept() -> None:
    raw = entry(2, rle=[])
    check_entry(raw, keep_masks=False)
    with pytest.raises(BadEntry) as caught:
        check_entry(raw, keep_masks=True)
    assert caught.value.reason == "masks do not match the <mask> tokens"


def test_not_an_object() -> None:
    with pytest.raises(BadEntry) as caught:
        check_entry(["filename"], keep_masks=False)
    assert caught.value.reason == "entry is not an object"


def test_tokens_in_answers_need_no_box() -> None:
    turns = [TURNS[0], {"from": "gpt", "value": "I see no <mask>."}]
    assert check_entry(entry(2, conversations=turns), False) == name(2)
