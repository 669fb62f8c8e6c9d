"""Image files judged by their bytes."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from PIL import Image
from raw_folder import ROOT, image_bytes

from tests.helpers.good_jpegs import by_pillow, exif_with_thumbnail, with_trailing
from theworld.data.entries.headers import BadImage, check_image

KINDS = [("JPEG", ".jpg"), ("JPEG", ".jpeg"), ("PNG", ".png"), ("WEBP", ".webp")]


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(("kind", "suffix"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (17, 300), (1024, 682)])
def test_size(kind: str, suffix: str, size: tuple[int, int], decode: bool) -> None:
    assert check_image(image_bytes(1, kind, size), suffix, decode) == size


@pytest.mark.parametrize(
    ("mode", "kind", "suffix", "options"),
    [
        ("L", "JPEG", ".jpg", {}),
        ("CMYK", "JPEG", ".jpg", {}),
        ("RGB", "JPEG", ".jpg", {"progressive": True}),
        ("RGB", "JPEG", ".jpg", {"icc_profile": b"\xff\xd9" * 40000}),
        ("RGB", "JPEG", ".jpg", {"restart_marker_blocks": 1}),
        ("RGBA", "PNG", ".png", {}),
        ("P", "PNG", ".png", {}),
        ("RGB", "WEBP", ".webp", {"lossless": True}),
        ("RGBA", "WEBP", ".webp", {}),
        ("RGBA", "WEBP", ".webp", {"lossless": True}),
    ],
)
def test_variants(mode: str, kind: str, suffix: str, options: dict) -> None:
    data = encode(Image.effect_noise((90, 50), 80).convert(mode), kind, **options)
    assert check_image(data, suffix, decode=False) == (90, 50)


def test_size_is_as_stored_not_as_rotated() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert check_image(data, ".jpg") == (40, 20)


@pytest.mark.parametrize(("kind", "suffix"), KINDS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_cut_short(kind: str, suffix: str, share: float) -> None:
    data = image_bytes(2, kind, (200, 200))
    with pytest.raises(BadImage) as caught:
        check_image(data[: int(len(data) * share)], suffix)
    assert caught.value.reason == "image is cut short"


def test_cut_short_with_a_whole_thumbnail_inside() -> None:
    thumbnail = image_bytes(3, "JPEG", (20, 20))
    data = encode(Image.effect_noise((200, 200), 90), "JPEG", exif=b"Exif\x00\x00" + thumbnail)
    assert check_image(data, ".jpg") == (200, 200)
    with pytest.raises(BadImage, match="cut short"):
        check_image(data[: len(data) * 3 // 4], ".jpg")


def test_cut_short_and_filled_with_zeros() -> None:
    data = image_bytes(2, "JPEG", (200, 200))
    with pytest.raises(BadImage, match="cut short"):
        check_image(data[: len(data) // 2] + bytes(len(data)), ".jpg")


def test_bytes_after_the_end_marker_are_fine() -> None:
    assert check_image(image_bytes(2, "JPEG", (20, 30)) + b"\x00" * 9, ".jpg") == (20, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image file is empty"),
        (b"<html>503</html>", "not an image"),
        (b"GIF89a" + bytes(30), "not an image"),
        (image_bytes(1, "PNG"), "image is wrongly named"),
        (image_bytes(1, "WEBP"), "image is wrongly named"),
        (b"\xff\xd8\xff", "image is cut short"),
        (b"\xff\xd8\xff\xe0\x00\x04ab\x12\x34", "image is cut short"),
        (b"\xff\xd8\xff\xd9\xff\xd9", "image header is damaged"),
    ],
)
def test_reasons_under_a_jpeg_name(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        check_image(data, ".jpg")
    assert caught.value.reason == reason


def test_decoding_finds_what_the_header_hides() -> None:
    data = bytearray(image_bytes(4, "PNG", (100, 100)))
    data[len(data) // 2] ^= 0xFF
    assert check_image(bytes(data), ".png") == (100, 100)
    with pytest.raises(BadImage) as caught:
        check_image(bytes(data), ".png", decode=True)
    assert caught.value.reason == "image does not decode"


def damaged(kind: str, data: bytes) -> bytes:
    """A JPEG that still has its end marker."""
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    return {
        "cut": data[:middle] + b"\xff\xd9",
        "zeroed": data[:middle] + bytes(300) + data[middle + 300 :],
        "lost": data[:middle] + data[middle + 300 :],
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "zeroed", "lost"])
def test_decoding_finds_lost_data_in_front_of_an_end_marker(kind: str) -> None:
    data = damaged(kind, image_bytes(2, "JPEG", (200, 200)))
    assert check_image(data, ".jpg") == (200, 200)
    with pytest.raises(BadImage, match="Corrupt JPEG data") as caught:
        check_image(data, ".jpg", decode=True)
    assert caught.value.reason == "image does not decode"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"quality": 100}])
def test_decoding_takes_every_kind_of_whole_jpeg(mode: str, options: dict) -> None:
    data = encode(Image.effect_noise((90, 50), 80).convert(mode), "JPEG", **options)
    assert check_image(data + bytes(9), ".jpg", decode=True) == (90, 50)


PHOTO = encode(Image.effect_noise((60, 40), 80), "JPEG")
FIRST = 4 + int.from_bytes(PHOTO[4:6], "big")
"""Where the first segment ends."""


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    "odd",
    [
        *(PHOTO[:FIRST] + between + PHOTO[FIRST:] for between in (b"\x00\x00", b"ab", b"\xff\x00", b"\xff\xff\xff")),
        PHOTO[:2] + b"\xff\xff" + PHOTO[2:],
        PHOTO[:2] + b"\xff\xd0" + PHOTO[2:],
        PHOTO[:FIRST] + b"\xff\xe1\x00\x00" + PHOTO[FIRST:],
        PHOTO[:FIRST] + b"\xff\xe2\x00\x04abcdefgh" + PHOTO[FIRST:],
        PHOTO[:FIRST] + b"\xff\xfe\x00\x06\xff\xd9ab" + PHOTO[FIRST:],
        PHOTO[:FIRST] + b"\xff\xcc\x00\x04\x00\x10" + PHOTO[FIRST:],
        PHOTO[:-2] + b"\xff\xe5\x00\x06abcd" + PHOTO[-2:],
        PHOTO[:-2] + b"\xff\xdc\x00\x04\x00\x28" + PHOTO[-2:],
        PHOTO[:-2] + b"\xff" * 40 + PHOTO[-2:],
        PHOTO + PHOTO,
        PHOTO + b"\xff" * 40,
    ],
    ids=range(15),
)
def test_what_decoders_pass_over_is_no_damage(odd: bytes, decode: bool) -> None:
    with Image.open(io.BytesIO(odd)) as image:
        image.load()
    assert check_image(odd, ".jpg", decode) == (60, 40)


def test_a_jpeg_of_twelve_bits_which_pillow_cannot_read_is_rejected() -> None:
    place = PHOTO.index(b"\xff\xc0") + 4
    data = PHOTO[:place] + b"\x0c" + PHOTO[place + 1 :]
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(data))
    with pytest.raises(BadImage, match="12 bits"):
        check_image(data, ".jpg")


@pytest.mark.parametrize("decode", [False, True])
def test_a_header_that_lies_about_the_size_costs_no_memory(decode: bool) -> None:
    data = bytearray(image_bytes(2, "JPEG", (60, 40)))
    place = data.index(b"\xff\xc0")
    data[place + 5], data[place + 7] = 0x80, 0x80
    with pytest.raises(BadImage, match="too many") as caught:
        check_image(bytes(data), ".jpg", decode)
    assert caught.value.reason == "image has too many pixels"


def test_the_limit_of_pixels_is_a_key() -> None:
    data = image_bytes(2, "PNG", (60, 40))
    assert check_image(data, ".png", most_pixels=2400) == (60, 40)
    with pytest.raises(BadImage, match="too many pixels"):
        check_image(data, ".png", most_pixels=2399)


def test_no_whole_jpeg_is_rejected_for_what_its_encoder_chose() -> None:
    picture = Image.effect_noise((64, 320), 60).convert("RGB")
    kinds = list(by_pillow(picture))
    kinds += with_trailing(encode(picture, "JPEG", exif=exif_with_thumbnail(picture))).items()
    for kind, data in kinds:
        size = Image.open(io.BytesIO(data)).size
        assert [check_image(data, ".jpg", decode) for decode in (False, True)] == [size, size], kind
    assert len(kinds) > 100


@pytest.mark.slow
def test_the_benchmark_of_the_checks_finds_all_good_ones_good() -> None:
    command = [sys.executable, "-m", "benchmarks.check_images", "--pictures", "1", "--samples", "4", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^  Pillow +\d{3} +0 +0 +0$", done.stdout, re.MULTILINE)
    assert re.search(r"^  damaged: zeroed +1 +0 +1 +0$", done.stdout, re.MULTILINE)
