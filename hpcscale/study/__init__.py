"""Studies: what more data, larger networks or other labels bring, over many runs.

In: measured points. Out: fits and forecasts.
"""
