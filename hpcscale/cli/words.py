"""The words of a hpcscale command: parsed and checked as if it were run, but not run."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpcscale.cluster.submit import Command, data_paths

FOLDERS = ("out", "out_dir", "out_file")  # names that commands give to the place they write to
NEVER = ("submit", "status", "logs", "cancel", "resubmit")


def read(words: Sequence[str], exists: bool) -> Command:
    """The command. exists: the files that it reads must exist now. Raises click.UsageError."""
    from hpcscale.cli import main

    command: click.Command = main
    context = click.Context(main, info_name="hpcscale")
    rest = list(words)
    while isinstance(command, click.Group):
        if not rest:
            raise click.UsageError("which command? hpcscale submit [OPTIONS] -- COMMAND...", context)
        found = command.get_command(context, rest[0])
        if found is None or rest[0] in NEVER:
            raise click.UsageError(f"'{rest[0]}' is no command that can be submitted", context)
        context = click.Context(found, parent=context, info_name=rest.pop(0))
        command = found
    if not exists:
        command = copy.copy(command)
        command.params = [_without_a_look(parameter) for parameter in command.params]
    command.parse_args(context, rest)
    values = context.params
    named = [parameter.name for parameter in command.params if isinstance(parameter.type, click.Path)]
    given = [values[name] for name in named if values[name]]
    paths = [path for value in given for path in (value if isinstance(value, tuple) else (value,))]
    run = values.get("run") or next(iter(values.get("runs", ())), None)  # `report` takes several runs
    out = run or next((values[name] for name in FOLDERS if values.get(name)), None)
    if out is None:
        raise click.UsageError("it says nowhere where its result goes, and so where its log could", context)
    settings = None
    if "overrides" in values and (file := values["file"]):  # none: `transfer probe` of given features
        settings, own = (_transfer if "source" in values else _recipe)(values, context)
        paths = [path for path in paths if path != file] + own
    return Command(
        words=tuple(words),
        folder=run or beside(out),
        paths=tuple(paths),
        parts=any(parameter.name == "part" for parameter in command.params),
        recipe=settings,
    )


def beside(out: Path) -> Path:
    """OUT.job, where the jobs of a command that writes OUT are kept."""
    out = out if out.name not in ("", "..") else out.resolve()  # "." has no name
    return out.parent / f"{out.name}.job"


def _without_a_look(parameter: click.Parameter) -> click.Parameter:
    """The parameter, without the check that its path exists."""
    if isinstance(parameter.type, click.Path):
        parameter = copy.copy(parameter)
        parameter.type = click.Path(path_type=Path)
    return parameter


def _recipe(values: dict[str, Any], context: click.Context) -> tuple[Any, list[Path]]:
    """The resolved configuration of a training, and the paths that it reads."""
    from hpcscale import tasks

    settings, read = tasks.load_from(values["file"], values["overrides"])
    return settings, data_paths(settings) + read


def _transfer(values: dict[str, Any], context: click.Context) -> tuple[Any, list[Path]]:
    """No configuration, and the paths that a transfer reads. Of a source that an earlier job makes, what it
    was trained on is not known yet."""
    from hpcscale.transfer import settings, source

    place = values["source"]
    made_later = place != source.RANDOM and not Path(place).exists()
    found = source.find(source.RANDOM if made_later else place)
    plan = settings.load(values["file"], values["overrides"], found, str(context.info_name))
    return None, plan.paths() + [Path(place)] * made_later
