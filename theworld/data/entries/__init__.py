"""JSON entry and image file: what comes in, checked, before it becomes an MDS sample."""
