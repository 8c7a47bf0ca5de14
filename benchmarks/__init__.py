"""Us, the peers and the limit of the hardware, in one run. `python -m benchmarks` prints rates and ratios."""
