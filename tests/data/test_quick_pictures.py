"""Quick decoding and drawing give what Pillow gives, also of files that are damaged."""

from __future__ import annotations

import io
import random
import warnings

import numpy as np
import pytest
from PIL import Image

from tests.helpers.drawing import draw_with_pillow
from theworld.data.samples import boxes
from theworld.data.samples.decode import DecodedSample, decode_image
from theworld.data.samples.jpeg import decode_quickly
from theworld.data.samples.regions import Region


def some_regions(chance: random.Random, width: int, height: int) -> list[Region]:
    """Boxes of any size, tiny ones, ones of no size and ones beyond the edge among them."""
    regions = []
    for number in range(chance.randint(1, 14)):
        x, y = chance.uniform(-20, width), chance.uniform(-20, height)
        wide = chance.choice([0, 1, 2, 3, 4, 7, chance.uniform(0, width)])
        high = chance.choice([0, 1, 2, 3, 5, 6, chance.uniform(0, height)])
        regions.append(Region(number, (x, y, x + wide, y + high)))
    return regions


@pytest.mark.parametrize("size", [(1024, 768), (300, 200), (1500, 1100), (60, 40), (20, 12), (500, 10)])
def test_boxes_and_labels_are_drawn_as_pillow_draws_them(size: tuple[int, int]) -> None:
    chance = random.Random(17)
    for seed in range(30):
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        picture, regions = Image.fromarray(noise), some_regions(chance, *size)
        drawn = boxes.draw_regions(picture, regions)
        assert drawn.tobytes() == draw_with_pillow(picture, regions).tobytes(), (seed, regions)


def jpeg(mode: str, **settings: object) -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG", **settings)
    return file.getvalue()


KINDS = {
    "baseline": jpeg("RGB"),
    "progressive": jpeg("RGB", progressive=True, quality=30),
    "4:4:4": jpeg("RGB", subsampling=0),
    "grey": jpeg("L"),
    "restarts": jpeg("RGB", restart_marker_rows=1),
    "cmyk": jpeg("CMYK"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpegs_pixels_are_pillows(kind: str) -> None:
    with Image.open(io.BytesIO(KINDS[kind])) as image:
        quick = decode_quickly(KINDS[kind], image.format, image.mode)
        expected = np.array(image.convert("RGB"))
    assert (quick is None) == (kind == "cmyk"), "the others take the quick way"
    assert np.array_equal(decode_image(KINDS[kind], (83, 61))[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, whole = random.Random(5), KINDS[kind]
    damaged = [whole[: chance.randrange(len(whole))] for _ in range(40)]
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        damaged.append(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EXIF that is damaged
        quick = [decode_image(data, (83, 61)) for data in damaged]
        monkeypatch.setattr("theworld.data.samples.decode.decode_quickly", lambda *_: None)
        slow = [decode_image(data, (83, 61)) for data in damaged]
    for number, (one, other) in enumerate(zip(quick, slow, strict=True)):
        assert one[1] == other[1], number
        assert np.array_equal(one[0], other[0]), number


def test_a_decoded_sample_is_a_picture_to_whoever_asks() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    sample = DecodedSample("a", pixels, [])
    assert sample.pixels is pixels
    sample.image.putpixel((5, 3), (1, 2, 3))
    assert sample.pixels[3, 5].tolist() == [1, 2, 3], "what a transform draws into the picture is trained on"
    grey = DecodedSample("b", Image.new("L", (2, 2), 7), [])
    assert grey.pixels.tolist() == [[[7] * 3] * 2] * 2
    with pytest.raises(TypeError):
        DecodedSample("c")  # pyright: ignore[reportCallIssue]
