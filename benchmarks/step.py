"""One training step of a ResNet-50 on two ranks, 64 pixels, 16 pictures a rank, one thread each.

Ours, with either library between the ranks, against torch's DistributedDataParallel (gloo) and against two
processes that do not talk, which is the limit; the allreduce of the gradients alone; and the shares of a step
in a real run. Each figure is from processes of its own, started in turn. `python -m benchmarks.step` measures
Horovod's settings too.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from hpcscale import ranks

ROUNDS, STEPS, WARM = 5, 8, 3
SIDE, BATCH, CLASSES = 64, 16, 1000

# Name -> role of the processes and environment on top.
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "hpcscale, Horovod": ("ours", {"HPCSCALE_BACKEND": "horovod"}),
    "hpcscale, torch.distributed": ("ours", {"HPCSCALE_BACKEND": "torch"}),
    "torch DistributedDataParallel, gloo": ("ddp", {}),
    "two processes that do not talk (limit)": ("alone", {}),
    "one process, one thread": ("single", {}),
}
SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    **{f"hpcscale, cycle time {ms} ms": ("ours", {"HOROVOD_CYCLE_TIME": ms}) for ms in ("1", "3", "5", "10")},
    "hpcscale, no response cache": ("ours", {"HOROVOD_CACHE_CAPACITY": "0"}),
    **{
        f"hpcscale, {library}, buckets of {mb} MiB during backward": (
            "ours",
            {"HPCSCALE_BACKEND": library, "BENCH_LIMIT": str(mb << 18)},
        )
        for library in ("horovod", "torch")
        for mb in (8, 32)
    },
    "hpcscale, malloc as it is": ("ours", {"BENCH_MALLOC": "0"}),
}


def run(variants: dict[str, tuple[str, dict[str, str]]] = VARIANTS) -> str:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, (role, environment) in variants.items():
            found[name].append(measure(role, environment))
    keys = ["step", "cpu", "forward", "backward", "reduce", "update", "allreduce"]
    lines = [
        "## Training step: ResNet-50, 64 pixels, 2 ranks x 16",
        "",
        "| ms, median of rounds | step | CPU | forward | backward | wait | update | 102 MB allreduce |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    medians = {}
    for name, rounds in found.items():
        medians[name] = {key: statistics.median(r[key] for r in rounds) for key in keys}
        cells = [f"{medians[name][key]:.0f}" if medians[name][key] else "" for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    if variants is VARIANTS:
        horovod, gloo, peer, limit, _ = (medians[name] for name in VARIANTS)
        for name, ours in (("Horovod", horovod), ("torch.distributed", gloo)):
            lines.append(
                f"- {name}: DistributedDataParallel takes {peer['step'] / ours['step']:.2f} x our time, the "
                f"limit is {limit['step'] / ours['step']:.2f} of it; torch's gloo takes "
                f"{peer['allreduce'] / ours['allreduce']:.2f} x our time for the allreduce"
            )
        lines += shares()
    return "\n".join(lines) + "\n"


def measure(role: str, environment: dict[str, str], module: str = "benchmarks.step") -> dict[str, float]:
    """What rank 0 of new processes writes to BENCH_OUT, such as milliseconds of the parts of a step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        variables = environment | {"BENCH_OUT": str(out), "BENCH_STORE": str(Path(folder) / "store")}
        os.environ.update(variables)
        try:
            code = ranks.launch([sys.executable, "-m", module, role], 1 if role == "single" else 2)
        finally:
            for name in variables:
                os.environ.pop(name, None)
        if code:
            raise RuntimeError(f"{module}, {role}: exit code {code}")
        result: dict[str, float] = json.loads(out.read_text())
        return result


def work(role: str) -> None:
    """What a rank does."""
    import torch
    import torch.nn.functional as F

    from hpcscale import config
    from hpcscale.models import networks
    from hpcscale.train import optim, process
    from hpcscale.train.gradients import GradientBuckets

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if os.environ.get("BENCH_MALLOC") != "0":
        process.keep_memory()  # for all variants
    model = networks.build(config.Model(), CLASSES)
    optimizer = optim.build(model, config.Optimizer())
    optim.set_lr(optimizer, 1e-3)
    network: torch.nn.Module = model
    buckets = None
    if role == "ours":
        ranks.init()
        buckets = GradientBuckets(model.parameters(), int(os.environ.get("BENCH_LIMIT", 0)) or None)
    elif role == "ddp":
        rank = int(os.environ["HOROVOD_RANK"])
        store = f"file://{os.environ['BENCH_STORE']}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        network = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    images = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    rows = (torch.rand(BATCH, CLASSES) < 0.01).float()
    times, cpu = [], 0.0
    for step in range(WARM + STEPS):
        if step == WARM:
            cpu = process_time()
        t = [perf_counter()]
        buckets.clear() if buckets else optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(network(images), rows, reduction="sum") / (2 * BATCH)
        t.append(perf_counter())
        loss.backward()
        t.append(perf_counter())
        if buckets:
            buckets.finish(loss.detach(), 0.0)
        t.append(perf_counter())
        optimizer.step()
        t.append(perf_counter())
        times.append([*np.diff(t), t[-1] - t[0]])
    cpu = (process_time() - cpu) / STEPS * 1e3
    reduced = allreduce(role) if role in ("ours", "ddp") else 0.0
    if os.environ.get("HOROVOD_RANK") == "0":
        parts = (np.median(times[WARM:], axis=0) * 1e3).tolist()
        result = dict(zip(("forward", "backward", "reduce", "update", "step"), parts, strict=True))
        result |= {"cpu": cpu, "allreduce": reduced}
        Path(os.environ["BENCH_OUT"]).write_text(json.dumps(result))
    ranks.shutdown()


def allreduce(role: str) -> float:
    """Milliseconds that the gradients take alone, by `ranks` or by gloo itself (collective)."""
    import torch

    flat = torch.ones(25_557_032)
    times = []
    for _ in range(WARM + STEPS):
        began = perf_counter()
        ranks.sum_(flat) if role == "ours" else torch.distributed.all_reduce(flat)
        times.append(perf_counter() - began)
        flat.fill_(1.0)
    return statistics.median(times[WARM:]) * 1e3


def shares() -> list[str]:
    """Shares of the step time that the loop itself logs, in a run on stored pictures through the whole
    pipeline."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        for i in range(64):
            place = folder / "pictures" / f"class{i % 8}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (9, 9, 3), np.uint8)).resize((72, 72)).save(
                place / f"{i}.jpg"
            )
        (folder / "parents.tsv").write_text("thing\n" + "".join(f"class{i}\tthing\n" for i in range(8)))
        command = [sys.executable, "-m", "hpcscale"]
        recipe = [f"[data]\ntrain = '{folder}/data'\nvocabulary = '{folder}/v.json'\n[input]\ncrop = {SIDE}"]
        recipe += [f"[schedule]\nlr = 0.001\n[train]\nsteps = 40\nbatch = {2 * BATCH}\nlog_every = 20"]
        (folder / "recipe.toml").write_text("\n".join(recipe))
        for words in (
            ["data", "ingest", folder / "pictures", folder / "data", "--resize", "72"],
            [
                "labels",
                "build",
                folder / "v.json",
                "--data",
                folder / "data",
                "--parents",
                folder / "parents.tsv",
            ],
            ["train", folder / "run", "--config", folder / "recipe.toml", "--ranks", "2"],
        ):
            subprocess.run([*command, *map(str, words)], check=True, capture_output=True)
        lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
        last = [line for line in lines if line["event"] == "step"][-1]
    parts = ", ".join(f"{key} {last[key]:.1%}" for key in ("wait", "compute", "allreduce", "rest"))
    return [
        f"- a run through the pipeline, {last['samples_per_second']:.0f} samples/s: {parts}",
        f"- wanted under 5 % that is not forward, backward or allreduce: {last['wait'] + last['rest']:.1%}",
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1])
    else:
        print(run(SETTINGS | VARIANTS))
