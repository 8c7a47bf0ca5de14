"""Networks, and their sizes computed from their shapes."""
