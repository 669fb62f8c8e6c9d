"""The road of a sample: JSON entry -> MDS sample -> decoded sample -> batch."""
