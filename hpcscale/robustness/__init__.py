"""How a model does outside the surroundings that it was trained on; the files say what each part does."""
