"""Help texts: what a group prints of its commands can be read on a terminal of 80 columns."""

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from hpcscale.cli import main


def _groups(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _groups(command, (*path, name))


GROUPS = list(_groups(main))


def test_the_groups_are_found() -> None:
    assert {(), ("data",), ("labels",), ("dedup",), ("dedup", "decisions"), ("image",)} <= set(GROUPS)


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_a_group_describes_each_command_in_one_whole_line(group: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "hpcscale", *group, "--help"]  # click's CliRunner is two columns wider
    environment = os.environ | {"COLUMNS": "80"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    lines = printed.partition("\nCommands:\n")[2].splitlines()
    assert lines
    assert [line for line in lines if line.endswith("...")] == []
    assert [line for line in lines if line.startswith("   ")] == [], "goes on in a second line"
