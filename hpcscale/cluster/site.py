"""What a job must know of a cluster and nothing else does: a TOML file in, a frozen Site out.

`slurm/sites/example.toml` explains every key; a key that is not here is an error. `submit` finds the file by
`--site`, $HPCSCALE_SITE or ~/.config/hpcscale/site.toml.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hpcscale import config
from hpcscale.cluster import files
from hpcscale.config import ConfigError

# What may stand on an #SBATCH line, where sbatch would split at spaces, take off quotes and drop comments.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s'\"\\#]+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Time = Annotated[str, StringConstraints(pattern=r"^(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})$")]
Template = Literal["train", "array", "single"]


class Resources(BaseModel):
    """What a job asks for. Keys that are not set leave it to Slurm."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    time: Time | None = None
    memory: Word | None = None
    gpus_per_node: int = Field(0, ge=0, le=1024)
    # None: one rank per GPU, or one where there is none.
    ranks_per_node: int | None = Field(None, ge=1, le=1024)
    cpus_per_rank: int | None = Field(None, ge=1, le=65536)
    # More options of sbatch, as "--exclusive".
    directives: tuple[Annotated[Word, StringConstraints(pattern="^--")], ...] = ()

    def ranks(self) -> int:
        """Ranks on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1


class Site(Resources):
    # The image that jobs run in.
    image: Path
    # Folders that jobs see in the image beside the working folder and the job's own; as `apptainer --bind`.
    binds: tuple[Annotated[str, StringConstraints(pattern=r"^/[^\n\"]*$")], ...] = ()
    # Loaded on the node, before anything else.
    modules: tuple[Word, ...] = ()
    # Program that runs images.
    apptainer: str = "apptainer"
    # Variables set in the image, and names of variables that pass from the environment of the job into it.
    environment: dict[Name, str] = {}
    pass_on: tuple[Name, ...] = ()
    # Network interface between the ranks; None: the one by which they reach one another.
    interface: Word | None = None
    # How ranks find one another: by hpcscale's own rendezvous ("none"), or by this plugin of `srun --mpi`.
    mpi: Word = "none"
    # Seconds before the time limit at which ranks are asked to save and stop.
    stop_seconds: int = Field(120, ge=1, le=65535)
    # A job is requeued after so many failures, then given up.
    retries: int = Field(5, ge=0, le=1000)
    # What differs for one kind of job.
    train: Resources | None = None
    array: Resources | None = None
    single: Resources | None = None

    def resources(self, template: Template) -> Resources:
        """The site's resources, and on top those of its table for this kind of job."""
        table: Resources | None = getattr(self, template)
        common = {name: getattr(self, name) for name in Resources.model_fields}
        own = {name: getattr(table, name) for name in table.model_fields_set} if table else {}
        return Resources(**(common | own))

    def visible(self) -> list[tuple[Path, Path]]:
        """Folders of the binds: where they are on the cluster, and where in the image."""
        pairs = []
        for bind in self.binds:
            source, _, rest = bind.partition(":")
            pairs.append((Path(source), Path(rest.partition(":")[0] or source)))
        return pairs


def find(name: str | None) -> Path:
    """The site file by name or path (with a slash or .toml); without, the user's own. Raises ConfigError."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hpcscale"
    name = name or os.environ.get("HPCSCALE_SITE")
    if not name:
        places = [home / "site.toml"]
    elif "/" in name or name.endswith(".toml"):
        places = [Path(name)]
    else:
        places = [home / "sites" / f"{name}.toml", files.slurm() / "sites" / f"{name}.toml"]
    for place in places:
        if place.is_file():
            return place
    looked = " and ".join(map(str, places))
    example = files.slurm() / "sites" / "example.toml"
    raise ConfigError(f"no site: looked for {looked}; describe your cluster as {example} does")


def load(file: Path) -> Site:
    """Read a site file. Raises ConfigError with every problem found."""
    return config.check(Site, config.read_toml(file), str(file))


def checked(resources: Resources, changes: dict[str, object]) -> Resources:
    """The resources with some of them chosen on the command line. Raises ConfigError."""
    return config.check(Resources, resources.model_dump() | changes, "options")
