"""Using a model: loading whatever holds one, asking it, writing it out. Needs neither Composer nor Streaming."""
