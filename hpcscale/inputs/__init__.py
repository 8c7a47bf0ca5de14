"""Stored pictures to the batches that a model reads."""
