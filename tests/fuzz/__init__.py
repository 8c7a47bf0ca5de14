"""Thousands of bad inputs, made from a small world of good ones: `make fuzz`."""
