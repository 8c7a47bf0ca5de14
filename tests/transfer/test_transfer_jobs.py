"""Transfers as jobs: what `submit` must know of them before Slurm does."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from grounds import Grounds

from hpcscale.cli import words


def test_a_search_is_shared_by_array_tasks_and_all_that_it_reads_is_named(grounds: Grounds) -> None:
    typed = ["transfer", "search", str(grounds.run), "--config", str(grounds.file), "--out", "found"]
    command = words.read(typed, exists=True)
    assert command.parts
    assert command.folder == Path("found.job")
    target, before = grounds.file.parent / "target", grounds.file.parent / "before"
    wanted = {
        target / "data",
        target / "vocabulary.json",
        grounds.test,
        grounds.run,
        before / "data",
        grounds.file,
    }
    assert set(command.paths) == wanted | {Path("found")}


def test_a_run_that_an_earlier_job_makes(grounds: Grounds, tmp_path: Path) -> None:
    typed = ["transfer", "finetune", str(tmp_path / "later"), "--config", str(grounds.file), "--out", "found"]
    """Whether it is there is looked at with all other paths."""
    assert tmp_path / "later" in words.read(typed, exists=False).paths


def test_features_from_anywhere_are_no_recipe(grounds: Grounds) -> None:
    typed = ["transfer", "probe", "--features", str(grounds.file), "--l2", "1", "--out", "weights.npz"]
    command = words.read(typed, exists=True)
    assert not command.parts
    assert set(command.paths) == {grounds.file, Path("weights.npz")}


def test_a_job_needs_a_place_for_its_result(grounds: Grounds) -> None:
    with pytest.raises(click.UsageError, match="nowhere where its result goes"):
        words.read(["transfer", "search", "random", "--config", str(grounds.file)], exists=True)


def test_a_login_node_without_torch_submits_transfers(grounds: Grounds) -> None:
    typed = ["transfer", "search", str(grounds.run), "--config", str(grounds.file), "--out", "found"]
    code = "import sys; sys.modules |= dict.fromkeys(('torch', 'numpy', 'h5py', 'safetensors')); "
    code += f"from hpcscale.cli import words; print(words.read({typed!r}, True).parts)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
