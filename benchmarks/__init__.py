"""hpcscale, its peers and the limit of the hardware, in one run. `python -m benchmarks` prints the rates and
their ratios."""
