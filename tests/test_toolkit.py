"""install/toolkit.sh: a site's toolkit if it fits torch, else NVIDIA's wheels, made whole by two links."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {0}, V{0}.88'\n"


def compiler(home: Path, release: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "nvcc").write_text(NVCC.format(release))
    (home / "bin" / "nvcc").chmod(0o755)
    return home


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment whose torch is for CUDA 13.0."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages(tmp_path) / "torch.py").write_text("class version:\n    cuda = '13.0'\n")
    return tmp_path / "venv" / "bin" / "python"


def packages(folder: Path) -> Path:
    (found,) = folder.glob("venv/lib/python3*/site-packages")
    return found


@pytest.fixture
def wheels(python: Path, tmp_path: Path) -> Path:
    home = compiler(packages(tmp_path) / "nvidia" / "cu13", "13.0")
    (home / "lib").mkdir()
    (home / "lib" / "libcudart.so.13").write_text("runtime")
    return home


def run(python: Path, site: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_HOME"}
    environment |= {"CUDA_HOME": str(site)} if site else {}
    command = [ROOT / "install" / "toolkit.sh", python]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_wheels_become_a_toolkit(python: Path, wheels: Path) -> None:
    for _ in range(2):
        done = run(python)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{wheels}\n", "")
        assert (wheels / "lib64" / "libcudart.so").read_text() == "runtime"


def test_a_toolkit_of_torchs_major_version_is_used(python: Path, wheels: Path, tmp_path: Path) -> None:
    site = compiler(tmp_path / "site", "13.2")
    done = run(python, site)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{site}\n", "")
    assert not (wheels / "lib64").exists()


@pytest.mark.parametrize(("release", "found"), [("12.9", "12.9"), (None, "no nvcc")])
def test_another_is_named_and_left(
    python: Path, wheels: Path, tmp_path: Path, release: str | None, found: str
) -> None:
    site = tmp_path / "site"
    if release:
        compiler(site, release)
    done = run(python, site)
    assert (done.returncode, done.stdout) == (0, f"{wheels}\n")
    assert f"CUDA_HOME={site} is not used: torch has CUDA 13.0, and there is {found}" in done.stderr


def test_what_cannot_be_is_told(python: Path, wheels: Path, tmp_path: Path) -> None:
    (wheels / "lib" / "libcudart.so.13").unlink()
    assert "no " + str(wheels / "lib" / "libcudart.so.13") in run(python).stderr
    (wheels / "bin" / "nvcc").unlink()
    done = run(python)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no {wheels / 'bin' / 'nvcc'}: install the wheels of install/toolkit.txt" in done.stderr
    (packages(tmp_path) / "torch.py").write_text("class version:\n    cuda = None\n")
    assert "has no CUDA" in run(python).stderr
