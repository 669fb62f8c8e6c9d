"""Entries of several images and of none, from the file to the sample that is decoded."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapes import FIRST, HEIGHT, PICTURE, SECOND, WIDTH, Set, chat, llava, picture
from streaming import StreamingDataset

from theworld.commands.status import main as status
from theworld.config.schema import ModelConfig
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.entries.columns import unpack_more
from theworld.data.samples.decode import decode_sample, stored_pictures
from theworld.data.shards.compare_source import compare_source
from theworld.data.shards.pending import Pending
from theworld.data.shards.verify import verify
from theworld.errors import UserError
from theworld.model.build import load_processor

ENCODER = SampleEncoder(load_processor(ModelConfig(gemma="builtin:tiny", cosmos="builtin:tiny")), 4096)
TALK = llava("<image>\nThis is one.\n<image>\nWhat differs?", "The grey.")


def grey_of(pixels: np.ndarray) -> int:
    """The red of a corner without boxes: 90 and the number of the picture."""
    return round(float(pixels[-3:, -3:, 0].mean()))


def two(**others: Any) -> dict[str, Any]:
    return {"id": "two", "images": [PICTURE, "c.png"], "conversations": TALK, **others}


def only(made: Set) -> dict[str, Any]:
    (sample,) = made.samples()
    return sample


def test_of_several_images_each_is_kept_as_it_is(tmp_path: Path) -> None:
    made = Set(tmp_path, [two()], PICTURE, "c.png")
    report = made.convert()
    assert (report.written, report.several, report.text_alone, +report.left_out) == (1, 1, 0, {})
    assert "with several images           1\n" in report.table()
    sample = only(made)
    assert sample["about"] == {"images": [PICTURE, "c.png"]}
    files = [(made.images / name).read_bytes() for name in (PICTURE, "c.png")]
    assert sample["image"] == files[0]
    (other,) = unpack_more(sample["more_images"])
    assert (other.data, other.width, other.height) == (files[1], WIDTH, HEIGHT)
    decoded = decode_sample(sample)
    assert [grey_of(pixels) for pixels in decoded.pictures] == [90, 91]
    assert [turn.question for turn in decoded.turns] == ["<image>\nThis is one.\n<image>\nWhat differs?"]
    assert verify(made.out).problems == []


def test_text_alone_is_a_sample_without_a_picture(tmp_path: Path) -> None:
    entries = [{"conversations": llava("2 + 2?", "4.")}, {"id": "own", "image": "", "conversations": llava("?", "!")}]
    made = Set(tmp_path, entries)
    report = made.convert()
    assert (report.written, report.text_alone, report.images, +report.left_out) == (2, 2, 0, {})
    first, second = made.samples()
    assert (len(first["id"]), first["id"][:5], second["id"]) == (21, "text-", "own")
    assert (first["image"], first["width"], first["height"], first["about"]) == (b"", 0, 0, {})
    assert "more_images" not in first, "the column is in data sets only that need it"
    decoded = decode_sample(first)
    assert (decoded.pictures, decoded.no_loss, decoded.image) == ([], None, None)
    assert decoded.turns[0].answer == "4."
    assert made.convert().written == 0, "the same ids when it is run again"
    assert compare_source(made.out).same == 2


def test_single_pictures_have_the_columns_that_they_always_had(tmp_path: Path) -> None:
    made = Set(tmp_path, [{"id": "x", "image": PICTURE, "conversations": llava("?", "!")}], PICTURE)
    made.convert()
    (shard,) = json.loads((made.out / "index.json").read_bytes())["shards"]
    names = ["about", "annotation_size", "bbox", "conversations", "height", "id", "image", "width"]
    assert shard["column_names"] == names
    assert only(made)["about"] == {"image": PICTURE}


def test_a_sample_waits_until_all_its_images_have_come(tmp_path: Path) -> None:
    entries = [two(), *({"id": name, "image": name, "conversations": llava("?", "!")} for name in ("c.png", PICTURE))]
    made = Set(tmp_path, entries, PICTURE)
    report = made.convert()
    assert (report.written, report.left_out["image not there yet"]) == (1, 2)
    made.add("c.png", b"half a")
    report = made.convert()
    assert (report.written, report.left_out["not an image"]) == (0, 2)
    assert sorted(made.rejected()) == [("c.png", "not an image"), ("two", "not an image")]
    assert made.convert().written == 0
    made.add("c.png", picture(1, "PNG"))
    report = made.convert()
    assert (report.written, +report.left_out, made.rejected()) == (2, {}, [])
    assert compare_source(made.out).same == 3
    made.add("c.png", picture(7, "PNG"))
    assert compare_source(made.out).replaced == [("two", "c.png"), ("c.png", "c.png")]


def manifest(made: Set) -> dict[str, Any]:
    return json.loads((made.out / "manifest.json").read_bytes())


def test_what_may_still_come_counts_a_sample_once_whatever_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image that the server does not have takes all samples of it; others are waited for."""
    entries = [
        two(),
        {"id": "three", "images": ["c.png", "d.png", "e.png"], "conversations": llava("?", "!")},
        {"id": "one", "image": PICTURE, "conversations": llava("?", "!")},
        {"id": "text", "conversations": llava("?", "!")},
    ]
    made = Set(tmp_path, entries, PICTURE)
    made.convert()
    assert (manifest(made)["samples"], manifest(made)["json_samples"]) == (2, 4)
    (made.images / "missing.jsonl").write_text(json.dumps({"id": "d"}) + "\n")
    made.convert()
    assert manifest(made)["json_samples"] == 3
    made.add("c.png", picture(1, "PNG"))
    given = [f"convert.{name}={getattr(made, name)}" for name in ("json", "images", "out")]
    assert status(["yamls/smoke.yaml", *given]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "wanted 6 there 4 (66.7%)" in shown
    assert "conversion 1 images" in shown
    assert made.convert().written == 1
    assert sorted(made.ids()) == ["one", "text", "two"]


def test_an_interrupted_conversion_goes_on_with_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was planned is on the disk, sets among it; the shards that are finished are not written again."""
    made = Set(tmp_path, [two(id=str(number)) for number in range(8)], PICTURE, "c.png")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pending, "close", stop)
        with pytest.raises(KeyboardInterrupt):
            made.convert(size_limit="4kb")
    written = {path: path.stat().st_mtime_ns for path in made.out.rglob("shard.*.mds")}
    caplog.set_level("INFO")
    assert made.convert(size_limit="4kb").written == 8
    assert "going on with gen-00000, which an earlier run began" in caplog.text
    times = {path.stat().st_mtime_ns for path in made.out.rglob("shard.*.mds")}
    assert times == set(written.values())
    assert [len(stored_pictures(sample)) for sample in made.samples()] == [2] * 8
    assert verify(made.out).problems == []


def test_they_are_added_to_a_data_set_that_has_none_of_them(tmp_path: Path) -> None:
    """Each generation has its own columns, and stock Streaming reads all of them."""
    single = {"id": "one", "image": PICTURE, "conversations": llava("?", "!")}
    made = Set(tmp_path, [single], PICTURE, "c.png")
    made.convert()
    before = (made.out / "gen-00000" / "index.json").read_bytes()
    made.json.write_text(json.dumps([single, two(), {"id": "text", "conversations": llava("?", "!")}]))
    assert made.convert().written == 2
    assert (made.out / "gen-00000" / "index.json").read_bytes() == before
    stock = StreamingDataset(local=str(made.out), shuffle=False, batch_size=1)
    assert [stock[place]["id"] for place in range(3)] == ["one", "two", "text"]
    assert [len(stored_pictures(stock[place])) for place in range(3)] == [1, 2, 0]
    assert verify(made.out).problems == []


def test_images_inside_of_tars_and_many_shards(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    entries = [
        {"id": str(number), "images": names[number : number + 3], "conversations": llava("?", "!")}
        for number in range(4)
    ]
    made = Set(tmp_path, entries)
    with tarfile.open(made.images / "some.tar", "w") as tar:
        for number, name in enumerate(names):
            about = tarfile.TarInfo(name)
            data = picture(number, "PNG")
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    assert made.convert(workers=2, size_limit="4kb").written == 4
    found = {sample["id"]: [grey_of(one) for one in decode_sample(sample).pictures] for sample in made.samples()}
    assert found == {str(number): [90 + number + place for place in range(3)] for number in range(4)}
    assert verify(made.out).problems == []


def test_pictures_inside_of_entries(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [{"id": "two", "images": [picture(3, "PNG"), picture(5, "PNG")], "conversations": TALK}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = Set(tmp_path / "set", [])
    assert made.convert(json=str(tmp_path / "rows.parquet"), images=None).written == 1
    assert [grey_of(one) for one in decode_sample(only(made)).pictures] == [93, 95]


# -- where the images stand in the text


@pytest.mark.parametrize(
    ("conversations", "questions"),
    [
        (llava("<image>\n<image>\nWhat?", "A."), ["<image>\n<image>\nWhat?"]),
        (llava("<image> One?", "A.", "And <image>?", "B."), ["<image> One?", "And <image>?"]),
        (llava("What?", "A."), ["<image><image>What?"]),
        (llava("<image>\nWhat?", "A.", "And?", "B."), ["<image><image>What?", "And?"]),
        (llava("<image><image><image>What?", "A."), ["<image><image>What?"]),
        (llava("", "A.", "<image>What?", "B."), ["<image><image>What?"]),
    ],
)
def test_each_image_stands_where_the_text_has_it_or_in_front(
    tmp_path: Path, conversations: list[dict[str, str]], questions: list[str]
) -> None:
    made = Set(tmp_path, [two(conversations=conversations)], PICTURE, "c.png")
    made.convert()
    decoded = decode_sample(only(made))
    assert [turn.question for turn in decoded.turns] == questions
    encoded = ENCODER(decoded)
    image = ENCODER.tokenizer.image_token_id
    assert encoded.input_ids.count(image) == 2 * ENCODER.processor.image_seq_length
    assert len(encoded.pixels["pixel_values"]) == len(encoded.pixels["world_pixel_values"]) == 2


@pytest.mark.parametrize("beside", [True, False])
def test_images_among_the_parts_of_messages(tmp_path: Path, beside: bool) -> None:
    def image(path: str) -> dict[str, str]:
        return {"type": "image"} if beside else {"type": "image", "image": path}

    content = [image(PICTURE), {"type": "text", "text": "and"}, image("c.png"), {"type": "text", "text": "differ?"}]
    entry = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]}
    made = Set(tmp_path, [{**entry, "images": [PICTURE, "c.png"]} if beside else entry], PICTURE, "c.png")
    assert made.convert().written == 1
    assert only(made)["id"] == "a/b+1"
    assert decode_sample(only(made)).turns[0].question == "<image>\nand\n<image>\ndiffer?"


def test_an_image_of_a_message_without_a_path_is_no_text_alone(tmp_path: Path) -> None:
    entry = {"messages": [{"role": "user", "content": [{"type": "image"}, {"text": "?"}]}, *chat("?", "!")[1:]]}
    made = Set(tmp_path, [entry, {"messages": chat("?", "!")}])
    report = made.convert()
    assert (report.written, +report.left_out) == (1, {"entry names no image": 1})


# -- regions


def drawn(pixels: np.ndarray, box: tuple[float, ...]) -> bool:
    """Whether a box has an outline in a picture."""
    colour = pixels[round(box[1]), round(box[0])].astype(int)
    return bool(colour.max() - colour.min() > 40)


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"bbox": [FIRST, SECOND]}, (0, 0)),
        ({"bbox": [[FIRST], [SECOND]]}, (0, 1)),
        ({"bbox": [[], [FIRST, SECOND]]}, (1, 1)),
    ],
)
def test_a_region_is_drawn_in_its_own_picture(tmp_path: Path, changes: dict[str, Any], places: tuple[int, int]) -> None:
    talk = llava("<image><image>Is <mask> as wide as <mask>?", "Region [1] is wider.")
    made = Set(tmp_path, [two(conversations=talk, **changes)], PICTURE, "c.png")
    assert made.convert().written == 1
    decoded = decode_sample(only(made))
    assert decoded.turns[0].question == "<image><image>Is Region [0] as wide as Region [1]?"
    for box, place in zip((FIRST, SECOND), places, strict=True):
        assert [drawn(pixels, box) for pixels in decoded.pictures] == [place == 0, place == 1]


def test_the_same_box_in_two_pictures_is_two_regions(tmp_path: Path) -> None:
    talk = llava("<image><image>Is <mask> like <mask>, or <mask>?", "Region [2].")
    made = Set(tmp_path, [two(conversations=talk, bbox=[[FIRST], [FIRST, FIRST]])], PICTURE, "c.png")
    made.convert()
    (turn,) = decode_sample(only(made)).turns
    assert (turn.question, turn.answer) == (
        "<image><image>Is Region [0] like Region [1], or Region [1]?",
        "Region [1].",
    )


def test_a_picture_without_boxes_may_be_of_another_size_than_the_annotation(tmp_path: Path) -> None:
    talk = llava("<image><image>How wide is <mask>?", "2 m.")
    entry = two(conversations=talk, bbox=[[], [FIRST]], width=WIDTH, height=HEIGHT)
    made = Set(tmp_path, [entry])
    made.add(PICTURE, picture(0, size=(50, 50)))
    made.add("c.png", picture(1, "PNG", (2 * WIDTH, 2 * HEIGHT)))
    assert made.convert().written == 1
    first, second = decode_sample(only(made)).pictures
    assert (first.shape, drawn(second, tuple(2 * side for side in FIRST))) == ((50, 50, 3), True)
    made.json.write_text(json.dumps([{**entry, "id": "wrong", "bbox": [[FIRST], []]}, entry]))
    report = made.convert()
    assert report.left_out["annotation is of another picture size"] == 1


# -- counts, latents, damage


def test_most_images_leaves_out_what_has_more(tmp_path: Path) -> None:
    made = Set(tmp_path, [two(), {"id": "t", "conversations": llava("?", "!")}], PICTURE, "c.png")
    report = made.convert(most_images=1)
    assert (report.written, +report.left_out) == (1, {"entry has more images than convert.most_images": 1})
    assert made.convert(most_images=2).written == 1
    with pytest.raises(UserError, match=r"convert\.most_images: 0: expected 1 or more$"):
        made.convert(most_images=0)


def test_a_picture_that_cannot_be_decoded_costs_the_sample_its_loss(tmp_path: Path) -> None:
    made = Set(tmp_path, [two()], PICTURE, "c.png")
    made.convert()
    stored = only(made)["more_images"]
    decoded = decode_sample({**only(made), "more_images": stored[:12] + b"x" * (len(stored) - 12)})
    assert decoded.no_loss is not None
    assert decoded.no_loss.startswith("picture 1: image cannot be decoded")
    encoded = ENCODER(decoded)
    assert set(encoded.labels) == {-100}
    assert len(encoded.pixels["pixel_values"]) == 1, "a grey one"


def test_a_column_that_is_cut_short_is_said(tmp_path: Path) -> None:
    made = Set(tmp_path, [two()], PICTURE, "c.png")
    made.convert()
    for end in (5, -1):
        with pytest.raises(ValueError, match="more_images: cut short"):
            unpack_more(only(made)["more_images"][:end])


def test_own_forms_say_which_picture_a_box_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs_form.py").write_text(
        "def read(entry):\n"
        "    return {'image': entry['files'], 'conversations': entry['talk'], 'boxes': entry.get('boxes', []),\n"
        "            'box_images': entry.get('of', [])}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    talk = llava("<mask>?", "!")
    entries = [
        {"files": [PICTURE, "c.png"], "talk": talk, "boxes": [FIRST], "of": [1]},
        {"files": [PICTURE, "c.png"], "talk": talk, "boxes": [FIRST], "of": [2]},
        {"files": [], "talk": llava("?", "!")},
        {"files": "", "talk": llava("?", "!")},
    ]
    made = Set(tmp_path / "set", entries, PICTURE, "c.png")
    report = made.convert(format="pairs_form:read")
    assert (report.written, made.ids()[0]) == (2, "a/b+1")
    assert +report.left_out == {"box_images do not match boxes and images": 1, "entry names no image": 1}
    first = decode_sample(made.samples()[0])
    assert [drawn(pixels, FIRST) for pixels in first.pictures] == [False, True]
