"""What a model is worth: metrics, the folder that keeps an evaluation, and what near-duplicates do to it."""
