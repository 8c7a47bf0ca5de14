"""VTAB: nineteen classification tasks of 1,000 training pictures each, and the mean over them."""
