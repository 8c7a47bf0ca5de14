"""Transfer: what pretraining bought, on classification of other pictures."""
