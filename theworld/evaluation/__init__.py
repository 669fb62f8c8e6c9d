"""Scoring of answers without a model: what an answer asserts, whether it is right, and tables of that."""
