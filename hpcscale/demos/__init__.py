"""What `make demo` and its like run: the commands that a user would type, on real pictures."""
