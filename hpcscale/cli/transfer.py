"""`hpcscale transfer ...`: what pretraining bought. Each command has a file of its own."""

import click

from hpcscale.cli.probe import probe


@click.group()
def transfer() -> None:
    """Judge pretraining by what it brings to other classification tasks."""


transfer.add_command(probe)
