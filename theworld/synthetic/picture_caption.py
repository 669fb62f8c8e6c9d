"""One true sentence about a scene, as a set of pictures with captions has it (CC3M, LLaVA-595K)."""

from __future__ import annotations

from theworld.synthetic.scene import Region, Scene

PLACES = {"table": "on a table", "room": "in a room", "field": "in a field"}
MOST_NAMED = 4


def caption(scene: Scene) -> str:
    """The largest things of a scene, from left to right.

    By the middle of what is seen of each; "largest" is the area of its visible box, in pixels.
    """
    largest = sorted(scene.regions, key=lambda one: (-area(one), one.index))[:MOST_NAMED]
    names = [named(one, scene.gray) for one in sorted(largest, key=lambda one: (one.box[0] + one.box[2], one.index))]
    return f"From left to right, {', '.join(names[:-1])} and {names[-1]} {PLACES[scene.kind]}."


def area(region: Region) -> int:
    """Of the visible box, in pixels."""
    left, top, right, bottom = region.box
    return (right - left) * (bottom - top)


def named(region: Region, gray: bool) -> str:
    """``a red ball``; in a grayscale picture without the colour."""
    thing = region.thing
    name = thing.category if gray else f"{thing.colour} {thing.category}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
