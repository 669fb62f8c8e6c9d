"""Composer's trainer, built from the configuration."""
