"""What jobs must know about a cluster, all in one place: a TOML file in, a frozen Site out.

`slurm/sites/example.toml` explains every key; a key that is not here is an error. `submit` finds the file by
`--site`, $HPCSCALE_SITE or ~/.config/hpcscale/site.toml.

A new key is a field of `Resources` (what Slurm is asked for) or of `Site`, with its default and what it is.
The example must explain it, which tests/cluster/test_site.py checks, and script.py puts it into job scripts.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from hpcscale import sections
from hpcscale.cluster import templates
from hpcscale.sections import ConfigError


def _like(pattern: str, expected: str) -> AfterValidator:
    """A string of this pattern. An error shows an example of what is expected, not the pattern."""

    def checked(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise PydanticCustomError("form", "expected {expected}", {"expected": expected})
        return text

    return AfterValidator(checked)


# What may stand on an #SBATCH line: sbatch splits it at spaces, removes quotes and drops comments.
WORD = r"[^\s'\"\\#\0]+"
SPAN = r"[0-9]+-[0-9]+(:[0-9]+){0,2}|[0-9]+(:[0-9]+){0,2}"
Word = Annotated[str, _like(WORD, "one word without quotes, # and \\, as gpu")]
Name = Annotated[str, _like("[A-Za-z_][A-Za-z0-9_]*", "the name of a variable, as HTTPS_PROXY")]
Time = Annotated[
    str,
    _like(
        rf"{SPAN}|(?i:UNLIMITED|INFINITE)", "a time as 30 (minutes), 1:30:00, 2-12 (days-hours) or UNLIMITED"
    ),
]
Bind = Annotated[
    str,
    _like(
        r'/[^\n"\0:]*(:/[^\n"\0:]*(:[^\n"\0:]+)?)?',
        'a bind as "/data", "/data:/in/the/image" or "/data:/data:ro"',
    ),
]
Program = Annotated[str, _like(r"[^\n\0]+", "the name or path of a program, as apptainer")]
Value = Annotated[str, _like(r"[^\0]*", "text without NUL")]
Count = Annotated[int, Strict(), Field(le=1_000_000)]
Template = Literal["train", "array", "single"]

# Options of sbatch that a job script sets itself, or that would break it; and what to use instead.
ELSEWHERE = "a login node of that cluster, or its slurm.conf in SLURM_CONF"
TAKEN = {
    "array": "--array",
    "chdir": "the folder that you submit from",
    "cluster": ELSEWHERE,
    "clusters": ELSEWHERE,
    "dependency": "--after",
    "nodes": "--nodes",
    "ntasks": "--nodes and --ranks-per-node",
    "ntasks-per-node": "--ranks-per-node",
    "signal": "the site's stop_seconds",
    "test-only": "--dry-run",
    "time": "--time, or the site's time",
    "wait": "`hpcscale logs -f`",
    "wrap": "the command behind --",
}


def _directive(text: str) -> str:
    if re.fullmatch(rf"--[a-z]{WORD}", text) is None:
        example = "an option of sbatch in one word, as --exclusive or --reservation=NAME"
        raise PydanticCustomError("directive", "expected {example}", {"example": example})
    name = text.removeprefix("--").partition("=")[0]
    # sbatch accepts abbreviated names of options.
    for taken, instead in TAKEN.items():
        if taken.startswith(name):
            values = {"taken": taken, "instead": instead}
            raise PydanticCustomError("taken", "--{taken} is hpcscale's own; use {instead}", values)
    return text


Directive = Annotated[str, AfterValidator(_directive)]


def _settable(name: str) -> str:
    if re.match(r"SLURM|HPCSCALE_(?!MEET_SECONDS$)|APPTAINER|SINGULARITY", name):
        raise PydanticCustomError("taken", "is set by the job itself, or not read in the image")
    return name


Settable = Annotated[Name, AfterValidator(_settable)]


class Resources(BaseModel):
    """What a job asks for. What is not set is left to Slurm."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    time: Time | None = None
    memory: Word | None = None
    gpus_per_node: Count = Field(0, ge=0, le=1024)
    # Nodes have NVIDIA GPUs that Slurm does not manage: the image gets all of them.
    nvidia: Annotated[bool, Strict()] = False
    # None: one rank per GPU; without GPUs, one rank.
    ranks_per_node: Count | None = Field(None, ge=1, le=1024)
    cpus_per_rank: Count | None = Field(None, ge=1, le=65536)
    # More options of sbatch, as "--exclusive".
    directives: Annotated[tuple[Directive, ...], Strict(False)] = ()

    def ranks(self) -> int:
        """Ranks on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1


class Site(Resources):
    # The image that jobs run in.
    image: Annotated[Path, Strict(False)]
    # Folders that the image sees, besides the working folder and the job's own; as for `apptainer --bind`.
    binds: Annotated[tuple[Bind, ...], Strict(False)] = ()
    # Loaded on the node, before anything else.
    modules: Annotated[tuple[Word, ...], Strict(False)] = ()
    # Program that runs images.
    apptainer: Program = "apptainer"
    # Variables set in the image; and names of variables that pass from the job's environment into the image.
    environment: dict[Settable, Value] = {}
    pass_on: Annotated[tuple[Name, ...], Strict(False)] = ()
    # Network interface between the ranks; None: the one through which they reach one another.
    interface: Word | None = None
    # How ranks find one another: by hpcscale's own rendezvous ("none"), or by this plugin of `srun --mpi`.
    mpi: Word = "none"
    # The library that connects the ranks, whatever a recipe says; None: as it says.
    backend: Literal["horovod", "torch"] | None = None
    # How many seconds before the time limit ranks are asked to save and stop.
    stop_seconds: Count = Field(120, ge=1, le=65535)
    # A job is requeued after this many failures; after one more, it is given up.
    retries: Count = Field(5, ge=0, le=1000)
    # What differs for one kind of jobs.
    train: Resources | None = None
    array: Resources | None = None
    single: Resources | None = None

    @model_validator(mode="after")
    def consistent(self) -> "Site":
        if self.backend == "torch" and self.mpi != "none":
            raise ValueError("backend = 'torch' finds its ranks by hpcscale's own rendezvous: mpi = 'none'")
        return self

    def resources(self, template: Template) -> Resources:
        """The site's resources, overruled by those of its table for this kind of jobs."""
        table: Resources | None = getattr(self, template)
        common = {name: getattr(self, name) for name in Resources.model_fields}
        own = {name: getattr(table, name) for name in table.model_fields_set} if table else {}
        return Resources(**(common | own))

    def check_time(self, limit: str | None) -> None:
        """Raises ConfigError if a time limit is so short that ranks would have to stop at once."""
        seconds = span(limit) if limit else None
        if seconds is not None and seconds <= self.stop_seconds:
            raise ConfigError(
                f"time {limit} is {seconds} s, of which stop_seconds = {self.stop_seconds} are for stopping: "
                "the job would be requeued for ever; allow more time, or set stop_seconds lower in the site"
            )

    def missing(self) -> list[str]:
        """The binds whose folder does not exist on this machine."""
        return [
            bind
            for bind, (outside, _) in zip(self.binds, self.visible(), strict=True)
            if not os.path.exists(outside)
        ]

    def image_fault(self) -> str | None:
        """What is wrong with the image, judged by its first bytes; None: nothing."""
        file = self.image
        if not file.is_absolute() or not file.is_file():
            return f"{file}: the site's image must be a file, with its full path"
        try:
            with file.open("rb") as stream:
                begin = stream.read(41)
        except OSError as error:
            return f"{file}: cannot be read: {error.strerror}"
        if begin[32:] != b"SIF_MAGIC":
            return f"{file}: is no image of Apptainer (SIF); `hpcscale image build` makes one"
        return None

    def visible(self) -> list[tuple[Path, Path]]:
        """The folders of the binds: their path on the cluster, and in the image."""
        pairs = []
        for bind in self.binds:
            source, _, rest = bind.partition(":")
            pairs.append((Path(source), Path(rest.partition(":")[0] or source)))
        return pairs


def find(name: str | None) -> Path:
    """The site file by name or path (with a slash or .toml); None: the user's own. Raises ConfigError."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hpcscale"
    name = name or os.environ.get("HPCSCALE_SITE")
    if not name:
        places = [home / "site.toml"]
    elif "/" in name or name.endswith(".toml"):
        places = [Path(name)]
    else:
        places = [home / "sites" / f"{name}.toml", templates.slurm() / "sites" / f"{name}.toml"]
    for place in places:
        if place.is_file():
            return place
    looked = " and ".join(map(str, places))
    example = templates.slurm() / "sites" / "example.toml"
    raise ConfigError(
        f"no site: looked for {looked}. A site file says what jobs must know of your cluster; one line is "
        f'enough to begin with:\n  image = "/shared/images/hpcscale-cpu.sif"\n{example} explains every key. '
        f"Copy it, change it, and name it with --site:\n  cp {shlex.quote(str(example))} mine.toml\n"
        "  hpcscale submit --site ./mine.toml --dry-run -- COMMAND..."
    )


def load(file: Path) -> Site:
    """Read a site file. Raises ConfigError with every problem found."""
    return sections.check(Site, sections.read_toml(file), str(file))


def checked(resources: Resources, changes: dict[str, object]) -> Resources:
    """The resources, changed by what the command line sets. Raises ConfigError."""
    return sections.check(Resources, resources.model_dump() | changes, "options")


def span(limit: str) -> int | None:
    """Seconds of a time limit as sbatch takes it; None: there is none."""
    if limit.upper() in ("UNLIMITED", "INFINITE"):
        return None
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # D-H, D-H:M, D-H:M:S
        hours, minutes, seconds = parts + [0] * (3 - len(parts))
    elif len(parts) == 1:
        hours, minutes, seconds = 0, parts[0], 0
    else:  # M:S, H:M:S
        hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds or None  # 0 means no limit too
