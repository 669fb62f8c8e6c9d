"""A run seen from outside: its figures as text for Prometheus, and its state from the files of its save folder."""
