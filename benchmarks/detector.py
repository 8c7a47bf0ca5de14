"""A training step of Faster R-CNN on two ranks, one thread each: ours, and torchvision's reference.

Theirs is what `fasterrcnn_resnet50_fpn` builds, frozen normalisations included, under torch's
DistributedDataParallel (gloo) with torch's SGD, as torchvision's references train it; ours is the recipe's
detector on our ResNet-50. Both have torchvision's numbers (2,000 proposals, 512 boxes, the root and the first
stage frozen), the same two pictures a rank and, on CPU torch, our suppression and RoIAlign, which is all that
torchvision has there. Each figure is from processes of its own, started in turn.
"""

import json
import os
import statistics
import sys
from pathlib import Path
from time import perf_counter, process_time

from benchmarks import step

ROUNDS, STEPS, WARM = 3, 5, 2
HEIGHT, WIDTH, PICTURES, OBJECTS, CLASSES = 192, 256, 2, 8, 20
VARIANTS = {
    "hpcscale, Horovod": ("ours", {"HPCSCALE_BACKEND": "horovod"}),
    "hpcscale, torch.distributed": ("ours", {"HPCSCALE_BACKEND": "torch"}),
    "torchvision, DistributedDataParallel, gloo": ("theirs", {}),
}


def run() -> str:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, (role, environment) in VARIANTS.items():
            found[name].append(step.measure(role, environment, "benchmarks.detector"))
    medians = {
        name: {key: statistics.median(each[key] for each in rounds) for key in ("step", "cpu")}
        for name, rounds in found.items()
    }
    theirs = [*medians.values()][-1]
    lines = [
        f"## Detector step: Faster R-CNN, ResNet-50, pyramid, {HEIGHT} x {WIDTH}, 2 ranks x {PICTURES}",
        "",
        "| ms, median of rounds | step | CPU of rank 0 | torchvision's step is x times this |",
        "|---|---:|---:|---:|",
    ]
    for name, of in medians.items():
        lines.append(f"| {name} | {of['step']:.0f} | {of['cpu']:.0f} | {theirs['step'] / of['step']:.2f} |")
    return "\n".join(lines) + "\n"


def work(role: str) -> None:
    """What a rank does."""
    import torch

    from hpcscale import config, ranks, tasks
    from hpcscale.data.manifest import Category
    from hpcscale.dense import detectors
    from hpcscale.dense.ops import torchvision
    from hpcscale.train import optim, process
    from hpcscale.train.gradients import GradientBuckets

    torch.set_num_threads(1)
    torch.manual_seed(0)
    process.keep_memory()  # for both
    rank, buckets = int(os.environ["HOROVOD_RANK"]), None
    network: torch.nn.Module
    if role == "ours":
        ranks.init()
        categories = [Category(name=str(number), id=number) for number in range(CLASSES)]
        network = detectors.build(tasks.Detector(), config.Model(), categories, "imagenet").model
        optimizer = optim.build(network, config.Optimizer())
        optim.set_lr(optimizer, 1e-3)
        buckets = GradientBuckets(network.parameters())
    else:
        store = f"file://{os.environ['BENCH_STORE']}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d,
            trainable_layers=3,
        )  # fmt: skip
        model = torchvision.models.detection.FasterRCNN(
            backbone, CLASSES + 1, min_size=HEIGHT, max_size=WIDTH
        )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, 1e-3, 0.9, weight_decay=1e-4)
        network = torch.nn.parallel.DistributedDataParallel(model)
    network.train()
    images = [torch.rand(3, HEIGHT, WIDTH) for _ in range(PICTURES)]
    corners = torch.rand(PICTURES, OBJECTS, 2) * torch.tensor([WIDTH / 2, HEIGHT / 2])
    sides = 16 + torch.rand(PICTURES, OBJECTS, 2) * torch.tensor([WIDTH / 2 - 16, HEIGHT / 2 - 16])
    targets = [
        {"boxes": boxes, "labels": torch.randint(1, CLASSES + 1, (OBJECTS,))}
        for boxes in torch.cat([corners, corners + sides], dim=2)
    ]
    times, cpu = [], 0.0
    for number in range(WARM + STEPS):
        if number == WARM:
            cpu = process_time()
        began = perf_counter()
        buckets.clear() if buckets else optimizer.zero_grad()
        loss = torch.stack([*network(images, [dict(target) for target in targets]).values()]).sum()
        loss.backward()
        if buckets:
            buckets.finish(loss.detach(), 0.0)
        optimizer.step()
        times.append(perf_counter() - began)
    if rank == 0:
        said = {"step": statistics.median(times[WARM:]) * 1e3, "cpu": (process_time() - cpu) / STEPS * 1e3}
        Path(os.environ["BENCH_OUT"]).write_text(json.dumps(said))
    ranks.shutdown()


if __name__ == "__main__":
    work(sys.argv[1]) if len(sys.argv) > 1 else print(run())
