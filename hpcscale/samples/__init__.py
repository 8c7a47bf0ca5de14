"""What a run trains on: which samples, with which labels, how often."""
