"""The command line: one file per command group. A command parses, imports late, calls one function and prints."""

import click

import hpcscale


@click.group()
@click.version_option(hpcscale.__version__)
def main() -> None:
    """Pretrain vision models on weakly labelled pictures, and audit the result."""
