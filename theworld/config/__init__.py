"""The one YAML of a run: its schema, and how it is read."""
