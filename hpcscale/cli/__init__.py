"""The command line: one file per command or group.

A command parses its words, imports what it needs, calls one function and prints what that returns.
"""

import contextlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import hpcscale
from hpcscale import text
from hpcscale.cli.outcome import told

COMMANDS = ("data", "labels", "train", "evaluate", "evaluate-results", "transfer", "robustness", "models",
            "export", "bench", "dedup", "report", "study", "papers", "image", "submit", "status", "logs",
            "cancel", "resubmit", "doctor")  # fmt: skip
# The module of a command, where it has another name than the command.
MODULES = dict.fromkeys(("status", "logs", "cancel", "resubmit"), "jobs")
MODULES["evaluate-results"] = "results"


class LateGroup(click.Group):
    """Finds the command `name` in the module `hpcscale.cli.name`, and imports that only when it is needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"hpcscale.cli.{MODULES.get(name, name)}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        if args is None:  # this is a process of its own, not a test
            text.use_utf8()
        return super().main(args, *rest, **extra)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        text.guard_streams()
        if broken := [arg for arg in args if "\0" in arg]:
            raise click.UsageError(f"{broken[0]!r:.80}: no path and no value holds a NUL", context)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        with told():
            return super().invoke(context)


@click.group(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hpcscale.__version__)
def main() -> None:
    """Pretrain vision models on weakly labelled pictures, and audit the result."""
    if attempt := os.environ.get("HPCSCALE_ATTEMPT"):  # tells the job script that the image has started
        with contextlib.suppress(OSError):
            Path(attempt, "began").touch()
