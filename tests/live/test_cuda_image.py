"""The CUDA image: built where there may be no GPU, tested by itself, and looked into."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from conftest import Record
from places import ROOT

from hpcscale.cluster import doctor

pytestmark = [pytest.mark.cuda_image, pytest.mark.timeout(5400, func_only=True)]

IMAGE = rig.FOLDER / "images" / "hpcscale-cuda.sif"
SITE = "/opt/hpcscale/lib/python3.11/site-packages"
MOST = 4e9  # bytes
ARCHITECTURES = {"sm_80", "sm_90"}  # HOROVOD_BUILD_CUDA_CC_LIST in install/horovod.sh


@pytest.fixture(scope="module")
def image(machines: None, record: Record) -> Path:
    begin = time.monotonic()
    rig.hpcscale("image", "build", "cuda", "--out", IMAGE, online=True, timeout=5000)
    seconds, size = time.monotonic() - begin, IMAGE.stat().st_size
    record("image build", seconds=f"{seconds:.0f}", GB=f"{size / 1e9:.2f}")
    return IMAGE


def inside(*words: str) -> str:
    return rig.login(rig.APPTAINER, "exec", "--cleanenv", IMAGE, *words, timeout=300)


@pytest.fixture(scope="module")
def horovod(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Horovod's library for torch, taken out of the image."""
    found = rig.SHARED / "horovod.so"
    library = f"cat {SITE}/horovod/torch/mpi_lib_v2.*.so"
    rig.login("sh", "-c", f"{rig.APPTAINER} exec --cleanenv {IMAGE} sh -c '{library}' >{found}")
    return found


def test_it_tests_itself_and_says_what_it_skips(image: Path, record: Record) -> None:
    said = dict(line.split(": ", 1) for line in rig.hpcscale("image", "test", image).splitlines())
    checks = ["imports", "extension", "decoding", "ranks", "nccl", "gpu_decoding", "gpu_ranks"]
    assert list(said) == checks
    assert said["decoding"].startswith("libjpeg-turbo")
    assert said["ranks"].startswith("horovod and torch, a sum over two on cpu")
    assert re.match(r"Horovod and torch share NCCL \d+\.\d+\.\d+", said["nccl"])
    for name in checks[-2:]:  # `image test` starts it without --nv
        assert said[name].startswith("skipped: "), said[name]
    record("%test", **{name: each.rpartition(" (")[0] for name, each in said.items()})


def test_what_horovod_links_with_is_in_the_image(image: Path) -> None:
    linked = inside("sh", "-c", f"ldd {SITE}/horovod/torch/mpi_lib_v2.*.so")
    assert "libnccl.so.2" in linked
    missing = re.findall(r"^\s*(\S+) => not found", linked, re.MULTILINE)
    shipped = inside("sh", "-c", f"find {SITE}/nvidia {SITE}/torch/lib -name '*.so*' -printf '%f\\n'").split()
    assert set(missing) <= set(shipped), "importing torch cannot bring these"


def test_the_toolkit_stays_behind(image: Path, record: Record) -> None:
    assert image.stat().st_size < MOST
    left = ("nvcc", "cicc", "cudafe++", "nvlink", "g++", "cc1plus", "cmake", "cuda_runtime.h", "libcuda.so.1")
    names = " -o ".join(f"-name {name}" for name in left)
    found = inside("sh", "-c", rf"find /opt /usr \( {names} \) -not -path '*/triton/*'")
    assert found == ""
    unpacked = inside("du", "-s", "--apparent-size", "--block-size=1000000", "/opt/hpcscale").split()[0]
    record("image build", unpacked_MB=unpacked)


def test_the_bill_says_which_cuda(image: Path) -> None:
    assert doctor.cuda_of_image(image) == "13.0"


def test_architectures(horovod: Path, record: Record, tmp_path: Path) -> None:
    """What an architecture is not listed for, the driver compiles from PTX, or refuses."""
    pip = (sys.executable, "-m", "pip", "install", "-q", "--target", tmp_path, "-c", ROOT / "constraints.txt")
    subprocess.run([*pip, "nvidia-cuda-cuobjdump"], check=True)
    (program,) = tmp_path.rglob("bin/cuobjdump")

    def listed(kind: str) -> set[str]:
        done = subprocess.run(
            [program, f"--list-{kind}", horovod], capture_output=True, text=True, check=True
        )
        return set(re.findall(r"\.(sm_\d+\w*)\.", done.stdout))

    assert listed("elf") == ARCHITECTURES
    record("Horovod's kernels", machine_code=sorted(listed("elf")), PTX=sorted(listed("ptx")))
