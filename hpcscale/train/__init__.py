"""Training: losses, optimizers, schedules and the loop that puts them together."""
