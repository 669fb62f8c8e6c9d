"""Decoded samples to batches, in an order that follows from the seed alone."""
