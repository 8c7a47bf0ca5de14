"""A login node for tests of `submit` and its kin: a working folder and the cluster of fake_slurm.py."""

import os
from pathlib import Path

import fake_slurm
import pytest
from click.testing import CliRunner, Result

from hpcscale.cli import main

RECIPE = """
[data]
train = "data"
vocabulary = "vocabulary.json"
[schedule]
lr = 0.1
[train]
steps = 100
batch = 8
"""
TRAIN = ("--", "train", "run", "--config", "recipe.toml")
SUBMIT = ("submit", "--site", "./site.toml", *TRAIN)


class Login:
    """A login node: a working folder with a data set, a recipe, an image, a site."""

    def __init__(self, folder: Path) -> None:
        self.cluster = fake_slurm.Cluster(folder / "slurm")
        self.image = folder / "image.sif"
        self.write_image('echo "$*"')
        self.work = folder / "work"
        (self.work / "data").mkdir(parents=True)
        (self.work / "vocabulary.json").touch()
        (self.work / "recipe.toml").write_text(RECIPE)
        self.write_site("")

    def write_image(self, text: str) -> None:
        self.image.write_bytes(fake_slurm.SIF + text.encode())

    def write_site(self, text: str) -> None:
        (self.work / "site.toml").write_text(f'image = "{self.image}"\n{text}')

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, list(words))

    def submit(self, *words: str) -> str:
        done = self.run("submit", "--site", "./site.toml", *words)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip().isdigit()
        return done.stdout.strip()

    def refused(self, *words: str) -> str:
        done = self.run("submit", "--site", "./site.toml", *words)
        assert done.exit_code == 2, done.output
        assert not self.cluster.jobs()
        return " ".join(done.output.split())


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """A login node in a folder, with its programs on PATH, working in its working folder."""
    here = Login(folder)
    for name in [name for name in os.environ if name.startswith(("HPCSCALE_", "SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    for name, value in here.cluster.install().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.chdir(here.work)
    return here
