"""From stored pictures to updated weights: ResNet-50 on two ranks against a straight PyTorch loop.

Theirs is what torchvision's reference training does, which cannot be installed here, so its transforms are
written with Pillow: files of a folder, a DataLoader with one worker a rank, Pillow's decode, a random-resized
crop (area [0.08, 1], ratio [3/4, 4/3]), mirror, normalisation by ImageNet's mean and deviation,
DistributedDataParallel on gloo, SGD. Ours is `hpcscale train` through the whole loop, with the same crops
(`method = "inception"`), model, batch, precision and optimizer, from a packed set of the same pictures at the
same size. Each rate is of processes of their own, started in turn.
"""

import json
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.codes import SAMPLE
from hpcscale import ranks
from hpcscale.bench import pictures
from hpcscale.bench.pictures import STORED

ROUNDS, STEPS, WARM = 3, 6, 2
SIDE, BATCH = 64, 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Name -> role of the processes and library between them.
VARIANTS = {
    "hpcscale train, torch.distributed": ("ours", "torch"),
    "hpcscale train, Horovod": ("ours", "horovod"),
    "DataLoader, Pillow, DistributedDataParallel": ("theirs", "torch"),
}


def run() -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(ROUNDS):
            for name, (role, backend) in VARIANTS.items():
                rates[name].append(_measure(role, backend, folder))
    medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
    torch, horovod, theirs = medians.values()
    lines = [
        f"## End to end: {STORED} px JPEGs to a step of ResNet-50, {SIDE} pixels, 2 ranks x {BATCH}",
        "",
        "| | samples/s, median of rounds | of all rounds |",
        "|---|---:|---|",
        *(
            f"| {name} | {medians[name]:.1f} | {', '.join(f'{rate:.1f}' for rate in rates[name])} |"
            for name in VARIANTS
        ),
        "",
        f"- wanted 1.5 x the straight loop: {torch / theirs:.2f} by torch.distributed, "
        f"{horovod / theirs:.2f} by Horovod",
    ]
    return "\n".join(lines) + "\n"


def prepare(folder: Path) -> None:
    """The same pictures, STORED a side, as files and packed; a vocabulary; a recipe."""
    from PIL import Image

    from hpcscale.demos.chain import write_pictures

    source = SAMPLE
    if not source.exists():
        source = folder / "photographs"
        write_pictures(source)
    files = folder / "files"
    files.mkdir()
    lines = []
    for line in (source / "manifest.jsonl").read_text().splitlines():
        record = json.loads(line)
        image = Image.open(source / record["image"]).convert("RGB").resize((STORED, STORED))
        name = f"{len(lines)}.jpg"
        image.save(files / name, quality=95)
        lines.append(json.dumps({"image": name, "tags": record["tags"][:1]}) + "\n")
    (files / "manifest.jsonl").write_text("".join(lines))
    pictures.pack(files, folder)
    (folder / "recipe.toml").write_text(
        f"""[data]
train = "{folder}/data"
vocabulary = "{folder}/vocabulary.json"
[input]
crop = {SIDE}
method = "inception"
values = "imagenet"
[evaluate]
method = "square"
[schedule]
lr = 0.001
[train]
steps = 1
batch = {2 * BATCH}
threads = 1
device = "cpu"
"""
    )


def _measure(role: str, backend: str, folder: Path) -> float:
    """Samples a second of both ranks."""
    out = folder / "rate.json"
    command = [sys.executable, "-m", "benchmarks.end_to_end", role, str(folder), str(out)]
    with mock.patch.dict(os.environ, {"HPCSCALE_BACKEND": backend}):
        code = ranks.launch(command, 2)
    if code:
        raise RuntimeError(f"benchmark end to end, {role}: exit code {code}")
    (folder / "store").unlink(missing_ok=True)
    rate: float = json.loads(out.read_text())
    return rate


def ours(folder: Path) -> float:
    from hpcscale import config
    from hpcscale.bench import measure
    from hpcscale.train import pretrain, process

    process.keep_memory()
    settings = measure.timed(config.load(folder / "recipe.toml"), STEPS // 2)
    with process.start(settings, folder) as here:
        job = pretrain.build(here, pretrain.open_inputs(settings))
        rate: float = measure.together(job, here)["samples_per_second"]
    return rate


def theirs(folder: Path) -> float:
    import torch
    import torch.nn.functional as F

    from hpcscale import config
    from hpcscale.models import networks
    from hpcscale.train import process

    process.keep_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank = int(os.environ["HOROVOD_RANK"])
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    pictures = Files(folder / "files")
    model = networks.build(config.Model(), pictures.classes)
    network = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), 1e-9, momentum=0.9, weight_decay=1e-4, fused=True)
    sampler: Any = torch.utils.data.DistributedSampler(pictures, 2, rank)
    loader = torch.utils.data.DataLoader(pictures, BATCH, sampler=sampler, num_workers=1, drop_last=True)
    batches = iter(loader)
    for step in range(WARM + STEPS):
        if step == WARM:
            began = perf_counter()
        images, labels = next(batches)
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        rows = F.one_hot(labels, pictures.classes).float()
        loss = F.binary_cross_entropy_with_logits(network(images), rows, reduction="sum") / BATCH
        loss.backward()
        optimizer.step()
        loss.item()
    return STEPS * 2 * BATCH / (perf_counter() - began)


class Files:
    """Pictures of a folder as torchvision's ImageFolder and transforms give them."""

    def __init__(self, folder: Path) -> None:
        records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        tags = sorted({tag for record in records for tag in record["tags"]})
        self.classes = len(tags)
        self.items = [(folder / r["image"], tags.index(r["tags"][0])) for r in records]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        file, label = self.items[index]
        image = Image.open(file).convert("RGB")
        box = random_resized(*image.size)
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
        return pixels.sub_(mean).div_(deviation), label


def random_resized(width: int, height: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom: area [0.08, 1] of the picture, ratio [3/4, 4/3], ten tries, else all."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


WORK: dict[str, Callable[[Path], float]] = {"ours": ours, "theirs": theirs}

if __name__ == "__main__":
    rate = WORK[sys.argv[1]](Path(sys.argv[2]))
    if os.environ.get("HOROVOD_RANK") == "0":
        Path(sys.argv[3]).write_text(json.dumps(rate))
