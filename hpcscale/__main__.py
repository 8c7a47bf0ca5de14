"""`python -m hpcscale` is the command `hpcscale`."""

from hpcscale.cli import main

main()
