"""The command line: one file per command group. A command parses, imports late, calls one function and prints."""

import importlib

import click

import hpcscale

COMMANDS = {
    "data": "Build, inspect and verify data sets.",
    "labels": "Build and inspect vocabularies and hierarchies.",
    "train": "Train a model, or continue a run.",
    "evaluate": "Evaluate the newest checkpoint of a run.",
    "report": "Write tables and figures of finished or running runs.",
}


class LateGroup(click.Group):
    """Imports a command's module only when the command is used, so that --help answers at once."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"hpcscale.cli.{name}"), name)
        return command


@click.group(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hpcscale.__version__)
def main() -> None:
    """Pretrain vision models on weakly labelled pictures, and audit the result."""
