"""How an ingest begins: its options, whose folder it is, who else is at work there, and the plan.

In: options and a folder. Out: the folder, locked, with plan.json and tags.jsonl of this ingest or of the call
that began it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.data.manifest import MOST, Plan, is_leftover, read_plan, remove_leftovers, tag_lines
from hpcscale.data.parts import Part, check_part, locked
from hpcscale.files import Usage, read_bytes, write_file, write_once

MAX_RESIZE = 8192


class OptionError(Usage):
    """An ingest that must not start: its options are out of range, or not those of the folder."""


class Packing(NamedTuple):
    """How pictures are stored."""

    resize: int | None = None  # every picture is stored as this many pixels squared; None: as large as it is
    quality: int = 90  # of JPEGs that are written anew
    shard_samples: int | None = None  # records of the source in a shard; None: for shards of 1 to 4 GB
    annotations: tuple[Path, ...] = ()  # files and folders that say what is stored beside the pictures


def check_options(packing: Packing, workers: int, part: Part | None) -> None:
    for name, value, limit in (
        ("resize", packing.resize or 1, MAX_RESIZE),
        ("quality", packing.quality, 100),
        ("workers", workers, 4096),
        ("shard_samples", packing.shard_samples or 1, 1 << 31),
    ):
        if not 1 <= value <= limit:
            raise OptionError(f"{name} must be between 1 and {limit}, found {value}")
    try:
        check_part(part)
    except ValueError as error:
        raise OptionError(str(error)) from None


@contextmanager
def begun(out: Path, part: Part | None) -> Iterator[bool]:
    """Keep other calls out; gives False if this file system cannot. A call without a part that made the
    folder removes it again if it began nothing there.
    """
    there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, part) as alone:
        if part is not None:
            yield alone
            return
        remove_leftovers(out)
        try:
            yield alone
        finally:
            remove_leftovers(out)
            if os.listdir(out) == [".lock"]:
                (out / ".lock").unlink()
                if not there:
                    out.rmdir()


def refuse_others(out: Path, options: dict[str, Any]) -> None:
    """Refuse a folder that is not ours or was begun with other options, before anything is written or
    removed. Other differences are known only after the survey. The plan is the first file of ours in a
    folder, so if there is none, no file is ours.
    """
    names = sorted(os.listdir(out)) if out.exists() else []
    if (out / "plan.json").exists():  # after the listing, which may have missed another task's plan
        _refuse_difference(out, read_plan(out).model_dump(), options)
        return
    ours = {".lock"} if not (out / ".lock").exists() or not (out / ".lock").stat().st_size else set()
    strangers = [name for name in names if name not in ours and not is_leftover(out / name)]
    if strangers:
        raise OptionError(
            f"{out}: not empty and not a data-set folder (found {strangers[0]}); choose another"
        )


def _refuse_difference(out: Path, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
    differences = [
        f"{key} was {begun[key]!s:.200}, now is {wanted[key]!s:.200}"
        for key in wanted
        if begun[key] != wanted[key]
    ]
    if differences:
        raise OptionError(
            f"{out} was begun with another source or options: {'; '.join(differences)}. "
            "Use the same as then, or another folder"
        )


def begin(out: Path, plan: Plan, tags: tuple[str, ...]) -> Plan:
    """Write the plan, or compare it with the plan of the first call, so that all calls have the same. Returns
    that one, which may be of an older format."""
    write_once(out / "plan.json", plan.json_text(indent=2).encode() + b"\n")
    stated = read_plan(out)
    _refuse_difference(out, stated.model_dump(), plan.model_dump(exclude={"format"}))
    table, content = out / "tags.jsonl", tag_lines(tags)
    if not table.exists() or read_bytes(table, MOST) != content:
        write_file(table, content)
    return stated
