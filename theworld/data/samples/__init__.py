"""MDS sample -> decoded sample: a picture with its regions drawn, and turns of text that name them."""

from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.decode import DecodedSample, decode_sample
from theworld.data.samples.regions import Region, Turn, read_turns, unique_regions

__all__ = ["DecodedSample", "Region", "Turn", "decode_sample", "draw_regions", "read_turns", "unique_regions"]
