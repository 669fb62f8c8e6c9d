"""Entries of other data sets' forms, from the file to the model's batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from shapes import HEIGHT, PICTURE, SHAPES, WIDTH, Set, Shape, chat, llava, picture, rle

from tests.helpers.loader import ids_of, open_data, smoke_on
from theworld.config.schema import ModelConfig
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples.decode import decode_sample, scale_regions
from theworld.data.samples.regions import unique_regions
from theworld.errors import UserError
from theworld.model.build import load_processor

ENCODER = SampleEncoder(load_processor(ModelConfig(gemma="builtin:tiny", cosmos="builtin:tiny")), 4096)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_entry_becomes_a_sample_with_its_regions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: Shape
) -> None:
    made = Set(tmp_path, [shape.entry], PICTURE)
    with caplog.at_level("INFO"):
        report = made.convert()
    assert (report.entries, report.written, +report.left_out) == (1, 1, {})
    assert f"auto takes {shape.format} for {made.json}: 1 of the first 1 entries have " in caplog.text
    (sample,) = made.samples()
    assert sample["image"] == (made.images / PICTURE).read_bytes()
    assert (sample["about"]["image"], sample["about"].get("category", "")) == (PICTURE, shape.category)
    decoded = decode_sample(sample)
    assert decoded.id == shape.id
    assert [(turn.question, turn.answer) for turn in decoded.turns] == shape.turns
    assert decoded.problems == []
    regions = scale_regions(unique_regions(sample["bbox"]), sample["annotation_size"], (WIDTH, HEIGHT))
    assert [region.box for region in regions] == [pytest.approx(box) for box in shape.boxes]
    for x1, y1, _, _ in shape.boxes:  # the outline has a colour, the picture has none
        colour = decoded.pixels[round(y1), round(x1)].astype(int)
        assert colour.max() - colour.min() > 40
    if not shape.boxes:
        assert abs(decoded.pixels.astype(int) - 90).max() < 8
    encoded = ENCODER(decoded)
    trained = ENCODER.tokenizer.decode([token for token in encoded.labels if token >= 0])
    assert encoded.no_loss is None
    assert all(answer in trained for _, answer in shape.turns)


def test_the_trainer_s_loader_gives_each_sample_once(tmp_path: Path) -> None:
    """Several of one picture, some without an id, some with regions."""
    entries = [shape.entry for shape in SHAPES.values() if shape.format == "llava"] * 3
    made = Set(tmp_path, entries, PICTURE)
    assert made.convert(workers=2, size_limit="8kb").written == len(entries)
    batches = list(open_data(smoke_on(made.out, tmp_path / "cache")).spec.dataloader)
    given = sorted(name for batch in batches for name in ids_of(batch))
    assert given == sorted(sample["id"] for sample in made.samples())
    assert len(set(given)) == len(entries)
    assert {reason for batch in batches for reason in batch["skipped"]} <= {"", "padding sample"}


# -- ids


def test_an_id_that_comes_again_gets_a_number_and_it_is_said(tmp_path: Path) -> None:
    entries = [
        {"image": "c/x.jpg", "conversations": llava("1?", "1.")},
        {"id": "a", "image": "c/x.jpg", "conversations": llava("2?", "2.")},
        {"id": "c/x", "image": "c/y.jpg", "conversations": llava("3?", "3.")},
        {"image": "c/x.jpg", "conversations": llava("4?", "4.")},
        {"id": 0, "image": "c/y.jpg", "conversations": llava("5?", "5.")},
        {"id": "", "image": "c/y.jpg", "conversations": llava("6?", "6.")},
    ]
    made = Set(tmp_path, entries, "c/x.jpg", "c/y.jpg")
    report = made.convert()
    assert made.ids() == ["c/x", "a", "c/x#2", "c/x#3", "0", "c/y"]
    assert [sample["conversations"][1]["value"] for sample in made.samples()] == ["1.", "2.", "3.", "4.", "5.", "6."]
    assert "of an id that was there before, named id#2 and so on           2\n" in report.table()
    assert made.convert().written == 0, "the same names when it is run again"


def test_a_number_that_is_somebody_s_id_does_not_make_two_of_one(tmp_path: Path) -> None:
    ids = ["a", "a#2", "a"]
    made = Set(tmp_path, [{"id": one, "image": PICTURE, "conversations": llava("?", "!")} for one in ids], PICTURE)
    report = made.convert()
    assert made.ids() == ["a", "a#2"]
    assert report.left_out["id named more than once"] == 1


# -- images


def test_images_are_known_by_their_path(tmp_path: Path) -> None:
    """The same name in two folders, a folder that is called depth, a mask beside its photo."""
    names = ["coco/1.jpg", "vg/1.jpg", "depth/1.png", "ade/1.jpg"]
    entries = [{"image": name, "conversations": llava("?", "!")} for name in [*names, "./coco//1.jpg"]]
    made = Set(tmp_path, entries, *names)
    made.add("ade/1.png", b"a mask")
    assert made.convert().written == 5
    assert [sample["id"] for sample in made.samples()] == ["coco/1", "vg/1", "depth/1", "ade/1", "coco/1#2"]
    for sample, name in zip(made.samples(), [*names, "coco/1.jpg"], strict=True):
        assert sample["image"] == (made.images / name).read_bytes()


def test_a_file_with_another_suffix_is_not_taken_for_the_one_that_is_named(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d"]
    made = Set(tmp_path, [{"image": name, "conversations": llava("?", "!")} for name in names])
    for name, kind in (("a.png", "PNG"), ("b.JPEG", "JPEG"), ("d.webp", "WEBP")):
        made.add(name, picture(kind=kind))
    report = made.convert()
    assert made.ids() == ["b", "d"]
    assert +report.left_out == {"image is there with another suffix only": 1, "image not there yet": 1}
    made.add("a.jpg", picture())
    assert made.convert().written == 1


def test_growth_writes_all_samples_of_an_image_that_arrives(tmp_path: Path) -> None:
    entries = [{"image": f"{number % 3}.jpg", "conversations": llava("?", f"{number}.")} for number in range(9)]
    made = Set(tmp_path, entries, "0.jpg")
    assert (made.convert().written, made.ids()) == (3, ["0", "0#2", "0#3"])
    made.add("2.jpg", b"half a")
    report = made.convert()
    assert (report.written, report.left_out["not an image"]) == (0, 3)
    assert sorted(made.rejected()) == [(name, "not an image") for name in ("2", "2#2", "2#3")]
    assert made.convert().written == 0
    made.add("2.jpg", picture())
    made.add("1.jpg", picture())
    report = made.convert()
    assert (report.written, +report.left_out, made.rejected()) == (6, {}, [])
    assert made.ids()[3:] == ["1", "2", "1#2", "2#2", "1#3", "2#3"]


def test_as_many_samples_as_asked_for(tmp_path: Path) -> None:
    entries = [{"image": PICTURE, "conversations": llava("?", f"{number}.")} for number in range(9)]
    made = Set(tmp_path, entries, PICTURE)
    assert made.convert(num_samples=4).written == 4
    assert made.convert(num_samples=6).written == 2
    assert made.convert().written == 3
    assert len(made.ids()) == len(set(made.ids())) == 9


# -- what cannot become a sample is counted under its own reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": ["a/b.jpg"] * 17}, "entry has more images than convert.most_images"),
        ({"image": ["a/b.jpg", "../c.jpg"]}, "image's path leads out of the image folder"),
        ({"image": None, "conversations": llava("<image>\n?", "!")}, "entry names no image"),
        ({"image": None, "conversations": llava("?", "!", "<video>?", "!")}, "entry names no image"),
        ({"image": None, "video": "a.mp4"}, "entry names no image"),
        ({"image": 5}, "entry names no image"),
        (
            {"image": None, "conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, 4]]},
            "entry has regions, but no image",
        ),
        ({"image": "../b.jpg"}, "image's path leads out of the image folder"),
        ({"image": "a/../../b.jpg"}, "image's path leads out of the image folder"),
        ({"image": "/etc/passwd"}, "image's path leads out of the image folder"),
        ({"image": "C:/b.jpg"}, "image's path leads out of the image folder"),
        ({"image": "a\\b.jpg"}, "image's path leads out of the image folder"),
        ({"image": "https://host/b.jpg"}, "image's path leads out of the image folder"),
        ({"image": "a/.hidden.jpg"}, "image's path cannot be one"),
        ({"image": "a/\x00.jpg"}, "image's path cannot be one"),
        ({"image": "a/\ud83d.jpg"}, "image's path cannot be one"),
        ({"image": "a/b.jpg/"}, "image's path cannot be one"),
        ({"image": "x" * 256}, "image's path cannot be one"),
        ({"image": "a/b.gif"}, "image is of a kind that is not read"),
        ({"id": "a\tb"}, "id cannot be one"),
        ({"id": "\ud83d"}, "id cannot be one"),
        ({"id": "x" * 256}, "id cannot be one"),
        ({"conversations": None}, "entry lacks a key"),
        ({"conversations": {}}, "entry lacks a key"),
        ({"conversations": []}, "conversation is not pairs of question and answer"),
        ({"conversations": llava("?")}, "conversation is not pairs of question and answer"),
        ({"conversations": llava("?", "!")[::-1]}, "conversation is not pairs of question and answer"),
        ({"conversations": ["?", "!"]}, "conversation turn lacks its text"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "!"}]}, "conversation turn lacks its text"),
        ({"conversations": [{"from": "me", "value": "?"}]}, "conversation turn is of an unknown role"),
        ({"conversations": [{"from": None, "value": "?"}]}, "conversation turn is of an unknown role"),
        ({"conversations": llava("?", "half \ud83d")}, "a text is not Unicode"),
        ({"conversations": llava("How wide is <mask>?", "2 m.")}, "fewer boxes than <mask> tokens"),
        ({"conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, 4]] * 2}, "more boxes than <mask> tokens"),
        ({"conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, 10**400]]}, "a box is not four numbers"),
        ({"conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, float("nan")]]}, "a box is not four numbers"),
        ({"conversations": llava("<mask>?", "!"), "bbox": [[1, 2, 3, "4"]]}, "a box is not four numbers"),
        ({"conversations": llava("<mask>?", "!"), "bbox": "all"}, "bbox is not a list"),
        ({"conversations": llava("<mask>?", "!"), "points": [[1]]}, "a point is not two numbers"),
        (
            {"conversations": llava("<mask>?", "!"), "rle": [{"size": [60, 80], "counts": "0o"}]},
            "a mask cannot be read",
        ),
        ({"conversations": llava("<mask>?", "!"), "rle": [rle((5, 5, 5, 5))]}, "a mask cannot be read"),
        ({"conversations": llava("<mask>?", "!"), "rle": [None]}, "a mask cannot be read"),
        ({"conversations": llava("Region [1]?", "!"), "bbox": [[1, 2, 3, 4]]}, "a region's number is of no box"),
        (
            {"conversations": llava("Region [1]?", "Region [0]."), "bbox": [[1, 2, 3, 4]] * 2},
            "an answer names a region that its question does not",
        ),
    ],
)
def test_each_fault_has_its_reason_and_costs_one_entry(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    good = {"id": "good", "image": PICTURE, "conversations": llava("?", "!")}
    bad = {key: value for key, value in {**good, "id": "bad", **changes}.items() if value is not None}
    made = Set(tmp_path, [good, bad, {**good, "id": "also"}], PICTURE)
    report = made.convert(format="llava")
    assert made.ids() == ["good", "also"]
    assert +report.left_out == {reason: 1}
    assert [found for _, found in made.rejected()] == [reason]


def test_boxes_that_no_question_names_are_no_fault(tmp_path: Path) -> None:
    """Other sets have other things under these keys."""
    entry = {"image": PICTURE, "conversations": llava("Where is it?", "[0.1, 0.2]"), "bbox": "0.1 0.2", "rle": 7}
    made = Set(tmp_path, [entry], PICTURE)
    assert made.convert().written == 1
    assert made.samples()[0]["bbox"] == []


def test_units_of_boxes(tmp_path: Path) -> None:
    entry = {"image": PICTURE, "conversations": llava("Is <mask> near?", "Yes."), "bbox": [[250, 500, 500, 1000]]}
    for unit, expected in (("thousandths", (20, 30, 40, 60)), ("auto", (250, 500, 500, 1000))):
        made = Set(tmp_path / unit, [entry], PICTURE)
        made.convert(boxes=unit)
        (sample,) = made.samples()
        (region,) = scale_regions(unique_regions(sample["bbox"]), sample["annotation_size"], (WIDTH, HEIGHT))
        assert region.box == expected
    with pytest.raises(UserError, match=r"convert\.boxes: cm: expected one of auto, pixels, shares, thousandths"):
        made.convert(boxes="cm")


def test_a_picture_of_another_shape_than_the_masks_is_rejected(tmp_path: Path) -> None:
    made = Set(tmp_path, [SHAPES["warehouse"].entry])
    made.add(PICTURE, picture(size=(50, 50)))
    assert made.convert().left_out["annotation is of another picture size"] == 1


def test_masks_are_kept_in_the_order_of_mention(tmp_path: Path) -> None:
    made = Set(tmp_path, [SHAPES["warehouse"].entry, SHAPES["llava"].entry], PICTURE)
    made.convert(keep_masks=True, format="llava")
    assert [sample["masks"] for sample in made.samples()] == [SHAPES["warehouse"].entry["rle"], []]


# -- which format


def test_auto_goes_by_most_of_the_first_entries_and_keeps_to_it(tmp_path: Path) -> None:
    good = {"image": PICTURE, "conversations": llava("?", "!")}
    made = Set(tmp_path, [{"other": 1}, good, {**good, "depth": ["d.png"]}, good, 7], PICTURE)
    report = made.convert()
    assert (report.format, report.written) == ("llava", 3)
    assert +report.left_out == {"entry lacks a key": 1, "entry is not an object": 1}


def test_names_of_formats(tmp_path: Path) -> None:
    made = Set(tmp_path, [{"messages": chat("?", "!"), "image": PICTURE}], PICTURE)
    with pytest.raises(UserError, match=r"convert\.format: lava: expected auto, openspatial, .*or your own"):
        made.convert(format="lava")
    with pytest.raises(UserError, match="no usable entry among 1: 1 x entry lacks a key"):
        made.convert(format="llava")
    assert made.convert(format="messages").written == 1


def test_another_format_makes_another_data_set(tmp_path: Path) -> None:
    """What is there stays what it is: with the other format the ids would mean other samples."""
    entry = {"filename": "x", "image": "x.jpg", "conversations": llava("?", "!"), "bbox": []}
    made = Set(tmp_path, [entry], "x.jpg")
    assert made.convert().written == 1
    with pytest.raises(UserError, match=r"convert\.format: llava, but .* was begun with openspatial; keep that"):
        made.convert(format="llava")
