"""`python -m hpcscale.selftest`: does this installation work here? The %test of an image.

In: nothing. Out: one line per check; at the first that fails, its reason and exit code 1. Every module is
imported, every variant of the C++ search is compared with NumPy, a picture goes through ingest, shard and
libjpeg-turbo, and two ranks on this machine add a number by each library that is installed. Takes seconds and
needs no GPU. Where torch has CUDA, Horovod must have NCCL; DALI and NCCL run where GPUs are seen, and else
are said to be skipped.
"""

import importlib.util
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import hpcscale

RANK = "HPCSCALE_SELFTEST_RANK"  # in the processes that are ranks: where their numbers lie, cpu or cuda


def imports() -> str:
    names = [module.name for module in pkgutil.walk_packages(hpcscale.__path__, "hpcscale.")]
    names = [name for name in names if not name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    return f"{len(names)} modules"


def extension() -> str:
    """Pairs within 40 bits among random codes and near copies of them, by every variant this CPU can run."""
    from hpcscale import ops

    chance = np.random.default_rng(0)
    a = chance.integers(0, 2**64, (65, 4), np.uint64)
    b = a[::-1] ^ (np.uint64(1) << chance.integers(0, 64, (65, 4)).astype(np.uint64))
    distances = np.bitwise_count(a[:, None] ^ b[None]).sum(2)
    expected = np.argwhere(distances <= 40)
    variants = ops.hamming_variants()
    for variant in variants:
        pairs = ops.search(a, b, 40, variant=variant)
        if not np.array_equal(pairs[:, :2], expected) or not len(expected):
            raise AssertionError(f"variant {variant} finds {len(pairs)} pairs, NumPy {len(expected)}")
    return f"variants {', '.join(variants)}"


def decoding() -> str:
    return f"libjpeg-turbo, {_decoded('cpu')}"


def gpu_decoding() -> str:
    return f"DALI, {_decoded('cuda')}" if _gpus() else "skipped: no GPU is seen here"


def _decoded(device: str) -> str:
    """A picture that is stored and decoded again is the same, except for what JPEG loses."""
    import torch
    from PIL import Image

    from hpcscale.config import Input
    from hpcscale.data.store import open_data
    from hpcscale.ingest.packing import Packing, ingest
    from hpcscale.inputs.pipeline import evaluate_batches

    y, x = np.mgrid[:64, :64].astype(np.uint8)
    pixels = np.stack([x * 4, y * 4, 255 - x * 2 - y * 2], axis=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        Image.fromarray(pixels).save(folder / "source" / "gradient.jpg", quality=95)
        (folder / "source" / "manifest.jsonl").write_text('{"image": "gradient.jpg", "tags": ["gradient"]}\n')
        ingest(folder / "source", folder / "data", packing=Packing(64), workers=1)
        data = open_data(folder / "data")
        batches = evaluate_batches(data, np.arange(1), Input(crop=64), batch=1, device=torch.device(device))
        images_NCHW = next(batches).images.cpu().numpy().copy()
        batches.close()
    error = float(np.abs(images_NCHW[0].transpose(1, 2, 0).astype(float) - pixels).max())
    if error > 12:
        raise AssertionError(f"a decoded pixel is {error:.0f} of 255 away from what was stored")
    return f"largest error {error:.0f} of 255"


def ranks() -> str:
    return _sum("cpu")


def gpu_ranks() -> str:
    found = _gpus()
    return _sum("cuda") if found > 1 else f"skipped: two ranks need two GPUs, and {found} are seen here"


def _sum(device: str) -> str:
    from hpcscale import ranks

    os.environ[RANK] = device
    libraries = ["horovod"] * (importlib.util.find_spec("horovod") is not None) + ["torch"]
    for library in libraries:
        os.environ["HPCSCALE_BACKEND"] = library
        code = ranks.launch([sys.executable, "-m", "hpcscale.selftest"], 2)
        if code:
            raise AssertionError(f"two ranks could not add by {library}: exit code {code}")
    return f"{' and '.join(libraries)}, a sum over two on {device}"


def nccl() -> str:
    """Horovod was compiled with NCCL, and finds the very library that torch has loaded, of that version."""
    import torch

    from hpcscale.ranks import horovod

    built, found = horovod.nccl(), torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    if built != found:
        raise AssertionError(f"Horovod was compiled with NCCL {built}, torch has loaded {found}")
    maps = Path("/proc/self/maps").read_text().splitlines()
    if len(files := {line.split()[-1] for line in maps if "libnccl.so" in line}) != 1:
        raise AssertionError(f"not one NCCL is loaded, but {', '.join(sorted(files)) or 'none'}")
    return f"Horovod and torch share NCCL {'.'.join(map(str, found))}"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def add(device: str) -> None:
    """What each of the two ranks does."""
    import torch

    from hpcscale import ranks

    ranks.init()
    if device == "cuda":
        device = f"cuda:{ranks.device_index(torch.cuda.device_count())}"
    total = ranks.sum_(torch.tensor([float(ranks.rank() + 1)], device=device))
    size = ranks.size()
    ranks.shutdown()
    if size != 2 or total.item() != 3.0:
        raise AssertionError(f"1 + 2 is {total.item()} on {size} ranks")


def main() -> None:
    if RANK in os.environ:
        add(os.environ[RANK])
        return
    from hpcscale.cluster.node import cuda_of_torch

    checks = [imports, extension, decoding, ranks]
    if cuda_of_torch():
        checks += [nccl, gpu_decoding, gpu_ranks]
    for check in checks:
        begin = time.monotonic()
        try:
            found = check()
        except Exception as error:
            sys.exit(f"{check.__name__}: {type(error).__name__}: {error}")
        print(f"{check.__name__}: {found} ({time.monotonic() - begin:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
