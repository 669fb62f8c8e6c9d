"""Region numbering: picture and text must name the same region by the same number."""

import random

import pytest
from PIL import Image

from theworld.data.samples import Region, Turn, draw_regions, read_turns, unique_regions
from theworld.data.samples.boxes import clamp_box, label_size, place_labels

LEFT_HOUSE = [3.15, 4.74, 505.04, 640.0]
RIGHT_HOUSE = [480.16, 22.68, 1007.64, 610.5]
CAR = [100.0, 400.0, 220.5, 500.0]


def conversation(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [
        message
        for question, answer in pairs
        for message in ({"from": "human", "value": question}, {"from": "gpt", "value": answer})
    ]


def test_repeated_box_keeps_its_first_number() -> None:
    """The pattern of the data set's row 0: the second turn's first mention repeats the first turn's."""
    turns, problems = read_turns(
        conversation(
            ("<image>\nIs <mask> <depth> wider than <mask> <depth>?", "No, Region [0] is narrower than Region [1]."),
            ("Of <mask> <depth> and <mask> <depth>, which is taller?", "Region [1] is taller than Region [0]."),
            ("How far is <mask> <depth> from the camera? ", "It is 12.57 inches away."),
        ),
        [LEFT_HOUSE, RIGHT_HOUSE, LEFT_HOUSE, CAR, RIGHT_HOUSE],
    )
    assert problems == []
    assert turns == [
        Turn("Is Region [0] wider than Region [1]?", "No, Region [0] is narrower than Region [1]."),
        Turn("Of Region [0] and Region [2], which is taller?", "Region [2] is taller than Region [0]."),
        Turn("How far is Region [1] from the camera?", "It is 12.57 inches away."),
    ]


def test_mention_twice_in_one_question_and_turn_without_mask() -> None:
    turns, problems = read_turns(
        conversation(
            ("<image>\nWhat time of day is it?", "Noon."),
            (
                "A shelf is 3 feet high. Does <mask> <depth> fit? Can <mask> <depth> be stored?",
                "No, Region [0] is tall.",
            ),
        ),
        [CAR, CAR],
    )
    assert problems == []
    assert turns[0] == Turn("What time of day is it?", "Noon.")
    assert turns[1].question == "A shelf is 3 feet high. Does Region [0] fit? Can Region [0] be stored?"


def test_wrong_citation_and_missing_answer_are_left_out_but_counted() -> None:
    turns, problems = read_turns(
        [
            {"from": "human", "value": "<image>\nIs <mask> <depth> big?"},
            {"from": "gpt", "value": "Region [4] is."},
            {"from": "human", "value": "And <mask> <depth>?"},
            {"from": "human", "value": "Or <mask> <depth>?"},
            {"from": "gpt", "value": "Region [0] is small."},
            {"from": "human", "value": "Well?"},
        ],
        [CAR, LEFT_HOUSE, RIGHT_HOUSE],
    )
    assert turns == [Turn("Or Region [2]?", "Region [2] is small.")]
    assert len(problems) == 3


def test_more_mentions_than_boxes_is_a_problem_not_a_crash() -> None:
    turns, problems = read_turns(conversation(("<mask> <depth> or <mask> <depth>?", "Region [0].")), [CAR])
    assert turns == []
    assert problems


def test_unique_regions_in_order_of_first_appearance() -> None:
    regions = unique_regions([RIGHT_HOUSE, CAR, RIGHT_HOUSE, LEFT_HOUSE])
    assert [region.number for region in regions] == [0, 1, 2]
    assert [list(region.box) for region in regions] == [RIGHT_HOUSE, CAR, LEFT_HOUSE]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-5.0, -2.0, 700.0, 500.0], (0, 0, 640, 480)),
        ([300.0, 200.0, 100.0, 50.0], (100, 50, 300, 200)),
        ([639.9, 479.9, 639.9, 479.9], (639, 479, 640, 480)),
        ([900.0, 900.0, 950.0, 950.0], (639, 479, 640, 480)),
    ],
)
def test_boxes_are_clamped_and_turned_round(box: list[float], expected: tuple[int, int, int, int]) -> None:
    assert clamp_box(box, 640, 480) == expected


def test_picture_shows_the_box_and_keeps_the_original() -> None:
    image = Image.new("RGB", (640, 480), "white")
    drawn = draw_regions(image, [Region(0, (100.0, 100.0, 300.0, 250.0))])
    assert drawn.getpixel((200, 100)) != (255, 255, 255)
    assert drawn.getpixel((200, 175)) == (255, 255, 255)
    assert image.getpixel((200, 100)) == (255, 255, 255)


def test_labels_never_overlap_and_stay_in_the_picture() -> None:
    generator = random.Random(5)
    for _ in range(150):
        width, height = generator.choice([(1024, 682), (768, 1024), (640, 480), (320, 240)])
        count = generator.randint(1, 12)
        boxes = []
        for _ in range(count):
            # Half of the boxes share a corner region, the hard case.
            x, y = generator.uniform(-20, width * 0.2), generator.uniform(-20, height * 0.2)
            boxes.append(
                clamp_box([x, y, x + generator.uniform(1, width), y + generator.uniform(1, height)], width, height)
            )
        font_size, labels = place_labels([f"Region [{n}]" for n in range(count)], boxes, width, height)
        assert label_size("Region [0]", font_size)[1] >= 7
        for place, (left, top, right, bottom) in enumerate(labels):
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            for other in labels[:place]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
