"""The cluster, started for the session and taken down after it, whatever happens; and the record of figures.

HPCSCALE_CLUSTER_KEEP=1    leave the cluster running, to look at it
HPCSCALE_CLUSTER_IMAGE=F   an image that is there already, instead of building one
HPCSCALE_CLUSTER_RECORD=F  where the table of figures is written (build/cluster.md, build/cuda-image.md)
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rig
from places import ROOT

FIGURES: dict[str, dict[str, str]] = {}  # drill -> figure -> value

Record = Callable[..., None]


@pytest.fixture(scope="session")
def machines() -> Iterator[None]:
    """The machines of the cluster, and on one of them the user's login environment."""
    if os.geteuid() != 0:
        pytest.fail("the test cluster needs root; run `make` as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the cluster is taken down
    begin = time.monotonic()
    try:
        rig.command("up")
        FIGURES["cluster up"] = {"seconds": f"{time.monotonic() - begin:.1f}"}
        rig.login("make", "-s", "login", "-C", rig.CLONE, online=True, timeout=300)
        rig.login("mkdir", "-p", rig.WORK)
        yield
    finally:
        if not os.environ.get("HPCSCALE_CLUSTER_KEEP"):
            rig.command("down")


@pytest.fixture(scope="session")
def cluster(machines: None) -> None:
    """A running cluster, with the user's image and site."""
    begin = time.monotonic()
    if "HPCSCALE_CLUSTER_IMAGE" not in os.environ:
        rig.hpcscale("image", "build", "cpu", "--out", rig.IMAGE, online=True, timeout=3000)
        FIGURES["image build"] = {"seconds": f"{time.monotonic() - begin:.0f}"}
    rig.SITE.write_text(SITE)


SITE = f"""
image = "{rig.IMAGE}"
apptainer = "{rig.APPTAINER}"
partition = "batch"
time = "30"
stop_seconds = 100
[train]
cpus_per_rank = 1
"""


@pytest.fixture(scope="session")
def record() -> Record:
    """record("drill", figure=value, ...): a line of the table that is printed in the end."""

    def note(drill: str, **figures: Any) -> None:
        row = FIGURES.setdefault(drill, {})
        row.update({name.replace("_", " "): str(value) for name, value in figures.items()})

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIGURES:
        return
    table = "| what | figures |\n|---|---|\n"
    for what, row in FIGURES.items():
        table += f"| {what} | {'; '.join(f'{name} {value}' for name, value in row.items())} |\n"
    name = str(terminalreporter.config.getoption("markexpr")).replace("_", "-")  # cluster, or cuda-image
    file = Path(os.environ.get("HPCSCALE_CLUSTER_RECORD") or ROOT / "build" / f"{name}.md")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(heading(name) + table)
    terminalreporter.write_sep("=", f"figures, written to {file}")
    terminalreporter.write_line(table)


def heading(name: str) -> str:
    def said(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            return done.stdout.strip()
        except FileNotFoundError:
            return "?"

    facts = [
        time.strftime("%Y-%m-%d"),
        "commit " + said("git", "rev-parse", "--short", "HEAD"),
        f"{platform.platform()}, {os.cpu_count()} cores",
        said("slurmctld", "-V"),
        said("apptainer", "--version"),
    ]
    return f"# Figures\n\n{', '.join(facts)}; `make test-{name}`\n\n"
