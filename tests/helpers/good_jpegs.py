"""Whole JPEGs of the kinds that OpenImages and photo sites have, by several encoders, and damaged copies of them.

What is good: its encoder wrote it, and nothing was lost. Encoders that are not installed are left out.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageCms

SIZES = [(1, 1), (7, 9), (8, 8), (16, 17), (33, 300)]
SCANS = "0: 0-63, 0, 0;\n1: 0-63, 0, 0;\n2: 0-63, 0, 0;\n"
"""For cjpeg: each colour in a scan of its own."""
CJPEG = {
    "baseline": "",
    "progressive": "-progressive",
    "optimized": "-optimize",
    "4:4:4": "-sample 1x1",
    "4:2:2": "-sample 2x1",
    "4:4:0": "-sample 1x2",
    "4:1:1": "-sample 4x1",
    "4:1:0": "-sample 4x2 -quality 60",
    "luma sampled less": "-sample 1x1,2x2,2x2",
    "grey": "-grayscale",
    "RGB": "-rgb",
    "restart": "-restart 1",
    "restart 3 blocks": "-restart 3B",
    "restart, progressive": "-progressive -restart 2",
    "quality 1": "-quality 1 -baseline",
    "16-bit tables": "-quality 1",
    "quality 100": "-quality 100",
    "fast DCT": "-dct fast",
    "arithmetic": "-arithmetic",
    "arithmetic, progressive": "-arithmetic -progressive -restart 1",
    "one scan a colour": "-scans {scans}",
}
JPEGTRAN = {
    "plain": "-copy all",
    "progressive": "-progressive -copy all",
    "optimized": "-optimize -copy none",
    "rotated": "-rotate 90 -copy all",
    "mirrored, trimmed": "-flip horizontal -trim",
    "cropped": "-crop 16x16+0+0",
    "grey": "-grayscale",
    "restart": "-restart 1B",
    "arithmetic": "-arithmetic -copy all",
}
IMAGEMAGICK = {
    "default": "",
    "progressive": "-interlace JPEG",
    "4:4:4": "-sampling-factor 1x1",
    "4:2:2": "-sampling-factor 2x1",
    "4:1:1": "-sampling-factor 4x1",
    "CMYK": "-colorspace CMYK",
    "grey": "-colorspace Gray",
    "RGB": "-colorspace RGB",
    "quality 100": "-quality 100",
    "turned": "-orient RightTop",
    "density, comment": "-units PixelsPerInch -density 300 -set comment photo",
}
FFMPEG = {
    "4:2:0": "-pix_fmt yuvj420p",
    "4:2:2": "-pix_fmt yuvj422p -q:v 2",
    "4:4:4": "-pix_fmt yuvj444p -q:v 9",
    "plain tables": "-pix_fmt yuvj420p -huffman default",
}


def good_jpegs(picture: Image.Image, folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """A picture in every kind.

    Args:
        picture: RGB, at least 33 x 300 pixels.
        folder: for temporary files.

    Yields:
        Encoder, kind and the file.
    """
    for kind, data in by_pillow(picture):
        yield "Pillow", kind, data
    plain = saved(picture, quality=90, exif=exif_with_thumbnail(picture))
    yield from (("after the end", kind, data) for kind, data in with_trailing(plain).items())
    ppm, scans, source = folder / "a.ppm", folder / "scans", folder / "a.jpg"
    picture.save(ppm)
    scans.write_text(SCANS)
    source.write_bytes(plain)
    out = folder / "b.jpg"
    commands = {
        "cjpeg": ("cjpeg {options} -outfile {out} {ppm}", CJPEG),
        "jpegtran": ("jpegtran {options} -outfile {out} {source}", JPEGTRAN),
        "ImageMagick": (f"{imagemagick()} {{ppm}} {{options}} {{out}}", IMAGEMAGICK),
        "GraphicsMagick": ("gm convert {ppm} {options} {out}", {"default": "", "CMYK": "-colorspace CMYK"}),
        "ffmpeg": ("ffmpeg -v error -y -i {ppm} {options} -frames:v 1 {out}", FFMPEG),
        "libvips": ("vips jpegsave {ppm} {out} {options}", {"default": "", "interlaced": "--interlace --Q 95"}),
    }
    for encoder, (line, kinds) in commands.items():
        if shutil.which(line.split()[0]) is None:
            continue
        for kind, options in kinds.items():
            options = options.format(scans=scans)
            command = line.format(options=options, ppm=ppm, source=source, out=out).split()
            subprocess.run(command, check=True, capture_output=True)
            yield encoder, kind, out.read_bytes()


def imagemagick() -> str:
    """Its command: another program may be called ``convert``."""
    return next((name for name in ("magick", "convert-im6.q16", "convert-im6") if shutil.which(name)), "magick")


def by_pillow(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Modes, samplings, scans, restarts, qualities, sizes, and what cameras and editors put in front of the scan."""
    for mode in ("RGB", "L", "CMYK"):
        one = picture.convert(mode)
        for progressive in (False, True):
            for sampling in (0, 1, 2) if mode != "L" else (-1,):
                for quality in (5, 75, 95, 100):
                    kind = f"{mode}, sampling {sampling}, quality {quality}{', progressive' * progressive}"
                    yield kind, saved(one, quality=quality, subsampling=sampling, progressive=progressive)
            yield f"{mode}, restart{', progressive' * progressive}", saved(one, restart_marker_rows=1)
            yield f"{mode}, restart each block", saved(one, progressive=progressive, restart_marker_blocks=1)
        for size in SIZES:
            for progressive in (False, True):
                small = one.resize(size)
                yield f"{mode}, {size[0]} x {size[1]}", saved(small, progressive=progressive, optimize=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "EXIF, turned", saved(picture, exif=turned)
    yield "EXIF, thumbnail", saved(picture, exif=exif_with_thumbnail(picture))
    yield "JFIF, density and comment", saved(picture, dpi=(300, 300), comment=b"\xff\xd9 a comment")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "ICC profile", saved(picture, icc_profile=profile)
    yield "ICC profile in four segments", saved(picture, icc_profile=profile + b"\xff\xd9\xff\xda" * 50_000)
    yield "kept as RGB", saved(picture, keep_rgb=True)
    yield "tables of an earlier file", saved(Image.open(io.BytesIO(saved(picture, quality=60))), quality="keep")


def saved(picture: Image.Image, **options: object) -> bytes:
    """As JPEG, by Pillow."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


def exif_with_thumbnail(picture: Image.Image) -> bytes:
    """An EXIF segment as cameras write it: an empty first directory, a second one with a small JPEG (TIFF 6.0)."""
    thumbnail = saved(picture.resize((160, 120)), quality=60)
    first = struct.pack("<H", 0) + struct.pack("<I", 14)
    fields = [(0x0103, 3, 6), (0x0201, 4, 14 + 2 + 36 + 4), (0x0202, 4, len(thumbnail))]
    second = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in fields)
    return b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + first + second + bytes(4) + thumbnail


def with_trailing(data: bytes) -> dict[str, bytes]:
    """Copies with something behind the end marker, as cameras, editors and downloads leave it."""
    return {
        "zeros": data + bytes(4096),
        "fill bytes": data + b"\xff" * 40,
        "text": data + b"\r\n<!-- served by a cache -->\r\n",
        "a second picture": data + data,
        "half a picture": data + data[: len(data) // 2],
        "a film": data + b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8,
    }


def damaged_jpegs(data: bytes) -> dict[str, bytes]:
    """Copies with their end marker that have lost something of the picture."""
    scan = data.rindex(b"\xff\xda") if data.count(b"\xff\xda") else 0
    middle = (scan + len(data)) // 2
    lost = max(8, (len(data) - scan) // 8)
    return {
        "cut": data[:middle] + b"\xff\xd9",
        "zeroed": data[:middle] + bytes(lost) + data[middle + lost :],
        "lost": data[:middle] + data[middle + lost :],
    }
