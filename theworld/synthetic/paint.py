"""Paint a scene: textured background, shadows, objects; encode it as the JPEG of a photo."""

from __future__ import annotations

import functools
import io
import random

import numpy as np
from PIL import Image, ImageCms

from theworld.synthetic.scene import COLOURS, Scene, Thing, clip

_GROUND = {"table": (150, 105, 65), "room": (150, 145, 140), "field": (95, 125, 60)}
_BEHIND = {"table": (190, 190, 175), "room": (205, 195, 175), "field": (150, 185, 225)}
_TILE = {"table": 0.1, "room": 0.5, "field": 2.0}
_PATTERNS = ("plain", "plain", "stripes", "bands", "checks", "dots")


@functools.lru_cache(maxsize=2)
def _noise(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three square planes of noise, float32, zero mean, unit deviation: fine, medium and coarse grain.

    They are the same for every scene, which takes a random window of them: noise made anew would cost more than the
    rest of the picture.
    """
    rng = np.random.default_rng(20261123)
    planes = []
    for grain in (1, 3, 40):
        cells = rng.random((side // grain + 2, side // grain + 2), dtype=np.float32)
        plane = np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))
        planes.append((plane - plane.mean()) / plane.std())
    return planes[0], planes[1], planes[2]


def _window(plane: np.ndarray, height: int, width: int, rng: random.Random) -> np.ndarray:
    top, left = rng.randrange(plane.shape[0] - height + 1), rng.randrange(plane.shape[1] - width + 1)
    view = plane[top : top + height, left : left + width]
    return view[:, ::-1] if rng.random() < 0.5 else view


def paint(scene: Scene, rng: random.Random, grain: float) -> np.ndarray:
    """Paint a scene.

    Args:
        scene: what to paint.
        rng: patterns and texture.
        grain: strength of the fine texture, in gray levels; what decides how large the file gets.

    Returns:
        uint8 ``(3, height, width)``.
    """
    side = (max(scene.width, scene.height) + 511) // 512 * 512 + 512
    fine, medium, coarse = _noise(side)
    canvas = _background(scene, rng, coarse)
    for thing in scene.things:
        _shadow(canvas, thing, scene)
    for thing in scene.things:
        _draw(canvas, thing, scene, rng, coarse)
    shape = scene.height, scene.width
    texture = _window(fine, *shape, rng) * np.float32(0.6 * grain)
    texture += _window(medium, *shape, rng) * np.float32(0.7 * grain)
    canvas += texture.astype(np.int16)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _background(scene: Scene, rng: random.Random, coarse: np.ndarray) -> np.ndarray:
    """Sky or wall above, tiled ground below; int16 ``(3, height, width)``: planes are the faster to paint."""
    edge = scene.far_edge
    canvas = np.empty((3, scene.height, scene.width), dtype=np.int16)
    tint = np.array([rng.randint(-25, 25) for _ in range(3)], dtype=np.int16)
    clouds = _window(coarse, edge, scene.width, rng) * 9 + np.linspace(-25, 20, edge, dtype=np.float32)[:, None]
    behind = np.array(_BEHIND[scene.kind], dtype=np.int16) + tint
    np.add(clouds.astype(np.int16), behind[:, None, None], out=canvas[:, :edge])
    if scene.kind == "field":
        hills = edge - (_window(coarse, 1, scene.width, rng)[0] + 2.2) * 0.02 * scene.height
        hilly = np.arange(edge)[:, None] > hills[None, :]
        np.copyto(canvas[:, :edge], np.array([85, 110, 90], dtype=np.int16)[:, None, None], where=hilly)
    shade = _tiles(scene) + _window(coarse, scene.height - edge, scene.width, rng) * 8
    ground = np.array(_GROUND[scene.kind], dtype=np.int16) + tint
    np.add(shade.astype(np.int16), ground[:, None, None], out=canvas[:, edge:])
    return canvas


def _tiles(scene: Scene) -> np.ndarray:
    """Brightness of square tiles of known size on the ground, in perspective; float32 ``(rows, width)``."""
    camera, tile = scene.camera, _TILE[scene.kind]
    rows = np.arange(scene.far_edge, scene.height, dtype=np.float32) + np.float32(0.5 - camera.horizon)
    depth = np.float32(camera.focal * camera.height) / np.maximum(rows, 0.5)
    across = np.arange(scene.width, dtype=np.float32) + np.float32(0.5 - camera.centre_x)
    columns = np.floor(np.outer(depth / np.float32(camera.focal * tile), across)).astype(np.int16)
    light = (columns + np.floor(depth / np.float32(tile)).astype(np.int16)[:, None]) & 1
    # They fade with distance, where they get narrower than a pixel.
    contrast = np.minimum(18.0, 0.6 * camera.focal * tile / depth).astype(np.float32)
    return light * contrast[:, None]


def _shadow(canvas: np.ndarray, thing: Thing, scene: Scene) -> None:
    """Darken the ground at a thing's foot, or below it: what shows how far off a hanging thing is."""
    camera = scene.camera
    row = camera.horizon + camera.focal * camera.height / thing.depth
    centre, radius = (thing.box[0] + thing.box[2]) / 2, (thing.box[2] - thing.box[0]) * 0.55
    flat = max(2.0, radius * 0.22)
    box = round(centre - radius), max(round(row - flat), scene.far_edge), round(centre + radius), round(row + flat)
    (rows, columns), _ = clip(box, scene.width, scene.height)
    y = (np.arange(rows.start, rows.stop) + 0.5 - row)[:, None] / flat
    x = (np.arange(columns.start, columns.stop) + 0.5 - centre)[None, :] / radius
    canvas[:, rows, columns] -= (x * x + y * y < 1) * np.int16(40)


def _draw(canvas: np.ndarray, thing: Thing, scene: Scene, rng: random.Random, coarse: np.ndarray) -> None:
    rows, columns = thing.silhouette.shape
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    light = _light(thing.surface, x, y) + _pattern(rng.choice(_PATTERNS), x, y, rng)
    light = light + _window(coarse, rows, columns, rng) * np.float32(0.06)
    base = np.array(COLOURS[thing.colour], dtype=np.float32)
    window, cut = clip(thing.box, scene.width, scene.height)
    patch = (light[cut] * base[:, None, None]).astype(np.int16)
    np.copyto(canvas[:, window[0], window[1]], patch, where=thing.silhouette[cut])


def _light(surface: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness around 1 over a patch with coordinates from -1 to 1; the light comes from the upper left."""
    if surface == "ball":
        return 1.12 - 0.28 * np.clip((x + 0.4) ** 2 + (y + 0.4) ** 2, 0, 2)
    if surface == "round":
        return 1.1 - 0.3 * (x + 0.35) ** 2 + 0 * y
    return 1.0 - 0.08 * x - 0.1 * y


def _pattern(pattern: str, x: np.ndarray, y: np.ndarray, rng: random.Random) -> np.ndarray:
    """Relative brightness of a decoration, to be added to the light."""
    across, down = rng.uniform(4, 12), rng.uniform(4, 12)
    strength = np.float32(rng.uniform(0.06, 0.14))
    if pattern == "stripes":
        return np.sign(np.sin(across * x)) * strength + 0 * y
    if pattern == "bands":
        return np.sign(np.sin(down * y)) * strength + 0 * x
    if pattern == "checks":
        return np.sign(np.sin(across * x)) * np.sign(np.sin(down * y)) * strength
    if pattern == "dots":
        return (np.sin(across * x) * np.sin(down * y) > 0.5) * (-2 * strength)
    return np.zeros((1, 1), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _srgb_profile() -> bytes:
    """An sRGB ICC profile; its creation date (bytes 24 to 35) is cleared, as it would differ from run to run."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)
    return bytes(profile)


def encode(planes: np.ndarray, gray: bool, quality: int, with_profile: bool) -> bytes:
    """Baseline JPEG of uint8 ``(3, height, width)``; grayscale when ``gray``, else with an sRGB profile when asked."""
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
    out = io.BytesIO()
    if gray:
        image.convert("L").save(out, "JPEG", quality=quality)
    else:
        image.save(out, "JPEG", quality=quality, icc_profile=_srgb_profile() if with_profile else None)
    return out.getvalue()
