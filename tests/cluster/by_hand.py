"""A job submitted by hand, on the cluster of fake_slurm.py, with an image that does what a test wants."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from places import ROOT


class Site:
    """A cluster, a working folder, and an image whose text is what the test wants to happen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = fake_slurm.Cluster(folder / "slurm")
        self.work = folder / "work"
        self.work.mkdir()
        self.image = folder / "image.sif"
        for name, value in self.cluster.install().items():
            monkeypatch.setenv(name, value)
        for name in [name for name in os.environ if name.startswith(("HPCSCALE_", "SLURM_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HPCSCALE_IMAGE", str(self.image))
        monkeypatch.chdir(self.work)

    def write_image(self, text: str) -> None:
        self.image.write_text(f"attempt=${{HPCSCALE_ATTEMPT##*.}}; rank=$SLURM_PROCID\n{text}\n")
        digest = hashlib.sha256(self.image.read_bytes()).hexdigest()
        Path(f"{self.image}.json").write_text(
            json.dumps({"constraints": {"sha": "1"}, "sha256": digest}, indent=2)
        )

    def sbatch(self, template: str, *words: str, options: tuple[str, ...] = ()) -> str:
        command = ["sbatch", "--parsable", *options, str(ROOT / "slurm" / f"{template}.sbatch"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def train(self, image: str, *options: str) -> list[dict[str, Any]]:
        """Run a training by hand on two nodes until it waits no more; its events."""
        self.write_image(image)
        job = self.sbatch("train", "run", "--config", "a b.toml", options=("--nodes=2", *options))
        self.cluster.run()
        return self.events("run", job)

    def events(self, folder: str, job: str) -> list[dict[str, Any]]:
        file = self.work / folder / "jobs" / f"{job}.attempts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    def log(self, folder: str = "run", job: str = "1") -> str:
        return (self.work / folder / "jobs" / f"{job}.log").read_text()


def ends(events: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    return [(event["verdict"], event["code"]) for event in events if event["event"] == "end"]
