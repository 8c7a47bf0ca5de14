"""Packed data sets: the shard format, the order of samples, hash files, and checks of all of them."""
