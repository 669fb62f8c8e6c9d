"""MDS sample: generations of shards, written in parallel, safe to kill, byte for byte deterministic."""
