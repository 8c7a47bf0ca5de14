"""`hpcscale transfer ...`: what pretraining bought. Each command has a file of its own."""

import click


@click.group()
def transfer() -> None:
    """Judge pretraining by what it brings to other classification tasks."""
