"""The built-in sample: rendered scenes with true questions, in the exact format of OpenSpatialDataset."""

from theworld.synthetic.sample import Sample, describe, filename
from theworld.synthetic.write_sample import Summary, generate

__all__ = ["Sample", "Summary", "describe", "filename", "generate"]
