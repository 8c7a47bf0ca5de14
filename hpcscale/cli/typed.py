"""Commands as a user would type them, for the demo."""

import shlex
import subprocess
import sys
from pathlib import Path

import click


def hpcscale(*words: str | Path) -> None:
    """Print and run one command; stop with its exit code if it fails."""
    command = ["hpcscale", *map(str, words)]
    click.secho(f"\n$ {shlex.join(command)}", bold=True, err=True)
    done = subprocess.run([sys.executable, "-m", "hpcscale", *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)
