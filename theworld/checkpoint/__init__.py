"""Checkpoints on disk: which are whole, how one is written, which weights it holds."""
