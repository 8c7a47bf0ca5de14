"""From a command to a job: the request is checked, rendered, written down, and handed to Slurm.

FOLDER/jobs/ID.sbatch is exactly what was submitted. ID.json says what it was made from; `resubmit` makes the
same job again from that.
"""

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

import hpcscale
from hpcscale import catalogue, config
from hpcscale.cluster import jobs, records, script, site, slurm, source
from hpcscale.files import Usage
from hpcscale.progress import Say
from hpcscale.sections import Section

RANKED = ("train", "evaluate")  # these share their work among ranks; of others, each rank would do all


class SubmitError(Usage):
    """A job that cannot be submitted as requested."""


@dataclass(frozen=True)
class Command:
    """A command of hpcscale, parsed but not run."""

    words: tuple[str, ...]  # without "hpcscale"
    folder: Path  # of the job: the run, or OUT.job beside what the command writes
    paths: tuple[Path, ...]  # all that it names
    parts: bool = False  # whether it has --part
    recipe: config.Training | None = None  # of commands that read one


@dataclass(frozen=True)
class Request:
    """The options of `hpcscale submit`; None leaves it to the site."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    site: str | None = None
    nodes: int = 1
    ranks_per_node: int | None = None
    time: str | None = None
    after: tuple[str, ...] = ()
    array: str | None = None
    sbatch: tuple[str, ...] = ()  # more options of sbatch
    after_any: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    text: str  # of the job script
    folder: Path
    record: dict[str, Any]
    own_comment: bool = False  # whether the script has a --comment of its own
    warnings: tuple[str, ...] = ()


def prepare(command: Command, request: Request, max_array_size: int) -> Submission:
    """Prepare all that does not need Slurm. Raises SubmitError and ConfigError."""
    for earlier in (*request.after, *request.after_any):
        if not re.fullmatch(slurm.ID, earlier):
            raise SubmitError(f"--after {earlier}: expected the id of a job, as 12")
    site_file = site.find(request.site).resolve()
    here = site.load(site_file)
    template: site.Template = (
        "array" if request.array else "train" if command.words[0] == "train" else "single"
    )
    resources = _resources(command, request, here, template)
    array, parts = _array(command, request.array, max_array_size)
    folder = Path(os.path.abspath(command.folder))
    _check_visible(command, folder, here, exists=not (request.after or request.after_any))
    if command.recipe and not command.parts:  # tasks that share work are no ranks that share a batch
        config.samples_of_rank(command.recipe, request.nodes * resources.ranks())
    if missing := here.missing():
        raise SubmitError(f"{site_file}: binds: {', '.join(missing)}: there is nothing here")
    digest, commit = _image(here)
    # RUN comes first, wherever the user put it: slurm/train.sbatch takes its first argument for the folder.
    words = list(command.words)
    if template == "train":
        words.remove(next(word for word in words[1:] if Path(word) == command.folder))
        words.remove("train")
    job = script.BatchJob(
        template=template,
        folder=folder,
        arguments=tuple(words),
        image=here.image,
        image_sha256=digest,
        resources=resources,
        nodes=request.nodes,
        after=request.after,
        after_any=request.after_any,
        array=array,
        parts=parts,
        catalogue=Path(os.path.abspath(named)) if (named := os.environ.get(catalogue.VARIABLE)) else None,
    )
    return Submission(
        text=script.render(job, here),
        folder=folder,
        record=_record(command, request, job, commit, site_file),
        own_comment=any(directive.startswith("--comm") for directive in resources.directives),
        warnings=_warnings(here, site_file),
    )


def _resources(
    command: Command, request: Request, here: site.Site, template: site.Template
) -> site.Resources:
    """What the site asks for, overruled by the request. Raises SubmitError and ConfigError."""
    common = here.resources(template)
    ranks = request.ranks_per_node
    if command.words[0] not in RANKED:
        if request.nodes > 1 or (ranks or 1) > 1:
            raise SubmitError(
                f"`{' '.join(command.words[:2])}` runs as one process: --nodes and --ranks-per-node are for "
                f"{' and '.join(RANKED)}"
            )
        ranks = 1
    chosen: dict[str, object] = {"ranks_per_node": ranks, "time": request.time}
    if request.sbatch:
        chosen["directives"] = (*common.directives, *request.sbatch)
    resources = site.checked(common, {key: value for key, value in chosen.items() if value is not None})
    here.check_time(resources.time)
    return resources


def _record(
    command: Command, request: Request, job: script.BatchJob, commit: str | None, site_file: Path
) -> dict[str, Any]:
    return {
        "command": list(command.words),
        "cwd": os.getcwd(),
        "folder": str(job.folder),
        "config": command.recipe.model_dump(mode="json") if command.recipe else None,
        "version": hpcscale.__version__,
        "commit": commit,
        "image": str(job.image),
        "image_sha256": job.image_sha256,
        "site": str(site_file),
        "nodes": request.nodes,
        "ranks_per_node": job.resources.ranks(),
        "time": job.resources.time,
        "array": job.array,
        "parts": job.parts or None,
        "after": [*request.after, *request.after_any],
        # What `resubmit` asks for.
        "request": vars(request) | {"site": str(site_file), "after": (), "after_any": ()},
    }


def _warnings(here: site.Site, site_file: Path) -> tuple[str, ...]:
    if here.modules or shutil.which(here.apptainer):
        return ()
    return (f"no '{here.apptainer}' on PATH here, and {site_file} loads no module: see that nodes have it",)


def submit(submission: Submission, say: Say) -> str:
    """Write record and script, hand the script to sbatch, name both after the job's id, and return the id.

    say: gets what else sbatch says. Raises SubmitError if another training of the same run waits or runs,
    SlurmError if Slurm refuses, and UnsureError if Slurm may have the job even so: then the record stays.
    """
    folder = submission.folder / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    with records.lock(folder, say):
        records.settle(submission.folder, say)
        if submission.record["command"][0] == "train":
            active = jobs.active_trainings(submission.folder) - set(submission.record["after"])
            if active:
                raise SubmitError(
                    f"{submission.folder}: job {', '.join(sorted(active))} trains this run already; "
                    "`hpcscale cancel` ends it, --after lets this one wait for it"
                )
        draft = records.draft(folder)
        draft.write(submission.text, {**submission.record, "submitted": int(time.time())})
        output = folder / ("%A_%a.log" if submission.record["array"] else "%j.log")
        try:
            job, said = slurm.submit(draft.script, output, draft.token, submission.own_comment)
        except slurm.UnsureError as error:
            raise slurm.UnsureError(
                f"{error}\nSlurm may have the job all the same, and {draft.record} stays: "
                "`hpcscale status` looks for the job, as does the next submission"
            ) from None
        except slurm.SlurmError:
            draft.remove()
            raise
        if said:
            say(said)
        try:
            draft.name(job)
        except OSError as error:
            say(f"job {job} waits, but its record has to stay {draft.record}: {error.strerror}")
    return job


def request_of(record: dict[str, Any]) -> Request:
    """The options that a job was submitted with, from its record. Raises records.DamagedError."""
    try:
        return TypeAdapter(Request).validate_python(record["request"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise records.DamagedError(
            f"the record of job {record['job']} is damaged: request.{where}: {first['msg']}"
        ) from None


def _array(command: Command, spec: str | None, most: int) -> tuple[str | None, int]:
    """The array for sbatch, and the number of parts. With more than `most` parts, each task does several."""
    if spec is None:
        return None, 0
    found = re.fullmatch(r"(?:(\d+)|0-(\d+))(%[1-9]\d*)?", spec)
    parts = (int(found[1]) if found[1] else int(found[2]) + 1) if found else 0
    if not found or not parts:
        raise SubmitError(f"--array {spec}: expected a number of parts N, or 0-LAST, either with %LIMIT")
    if not command.parts or any(word.partition("=")[0] == "--part" for word in command.words):
        raise SubmitError(
            f"--array: `{' '.join(command.words[:2])}` must be a command that shares its work by --part I/N, "
            "and --part is left to the array"
        )
    if most < 1:
        raise SubmitError("--array: this cluster takes no arrays: its MaxArraySize is 0")
    return f"0-{min(parts, most) - 1}{found[3] or ''}", parts


def _check_visible(command: Command, folder: Path, here: site.Site, exists: bool) -> None:
    """Refuse paths that the image would not see, and missing ones, unless an earlier job makes them."""
    binds = here.visible()
    seen = [Path.cwd(), folder, *(inside for _, inside in binds)]
    moved = [inside for outside, inside in binds if outside != inside]
    for path in command.paths:
        full = Path(os.path.abspath(path))
        if any(full.is_relative_to(place) for place in moved):
            continue  # in the image this path is another file
        for name in dict.fromkeys((full, full.resolve())):
            if not any(name.is_relative_to(place) for place in seen):
                link = "" if name == full else f" (a link to {name})"
                raise SubmitError(
                    f"{path}{link}: the image would not see it; it sees the working folder {Path.cwd()}, "
                    f"{folder}, and the binds of the site: {', '.join(here.binds) or 'none'}"
                )
    if exists and command.recipe:
        for path in data_paths(command.recipe):
            if not path.exists() and not any(Path(os.path.abspath(path)).is_relative_to(m) for m in moved):
                raise SubmitError(
                    f"{path}: does not exist; if another job writes it, name that one with --after"
                )


def data_paths(settings: config.Training) -> list[Path]:
    """What a recipe reads, whatever its task: every path that a section of it names."""
    keys = (value for _, section in settings if isinstance(section, Section) for _, value in section)
    return [value for value in keys if isinstance(value, Path)]


def _image(here: site.Site) -> tuple[str, str | None]:
    """SHA-256 and commit of the site's image, from the record that `image build` wrote beside it."""
    file = here.image
    if wrong := here.image_fault():
        raise SubmitError(wrong)
    try:
        values = records.read_json(file.with_name(file.name + ".json"))
    except FileNotFoundError:  # seconds
        return source.sha256(file), None
    except records.DamagedError as error:
        raise SubmitError(f"{error}; `hpcscale image verify` says more") from None
    digest, commit = values.get("sha256"), values.get("revision")
    if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
        raise SubmitError(f"{file}.json: holds no SHA-256 of the image; `hpcscale image verify` says more")
    return str(digest), commit
