"""The classifier's part of a step, 2048 features, 18,291 classes, 32 pictures a rank: divided and whole.

From features to updated weights, as in train.loop: targets, logits, loss, gradients, what ranks exchange,
SGD. On 2 and on 4 ranks, one thread each, both kinds in the same processes, in turn. With a divided
classifier, labels travel within "targets" and features within "compute". Bytes are counted at the face of
`hpcscale.ranks`, and compared with the formula; from the measured constants, the same step on 50 and 336
ranks is forecast.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import jft
from hpcscale import ranks

FEATURES, BATCH, REPEATS, WARM = 2048, 32, 15, 3
PARTS = ("targets", "compute", "exchange", "update", "step")
WEIGHTS = (FEATURES + 1) * jft.CLASSES


def run() -> str:
    lines = [
        f"## Classifier of {FEATURES} x {jft.CLASSES:,}, {BATCH} pictures a rank",
        "",
        f"| ms, median of {REPEATS} | {' | '.join(PARTS)} | MB sent by a rank | by formula |",
        "|---|" + "---:|" * (len(PARTS) + 2),
    ]
    notes = []
    for count in (2, 4):
        found = measure(count)
        for kind in ("divided", "whole"):
            cells = [f"{found[kind][part]:.1f}" for part in PARTS]
            cells += [f"{found[kind]['bytes'] / 1e6:.2f}", f"{sent(kind, count, BATCH) / 1e6:.2f}"]
            lines.append(f"| {kind}, {count} ranks | {' | '.join(cells)} |")
        ratio = found["divided"]["step"] / found["whole"]["step"]
        wanted = ", wanted at most 0.6" if count == 2 else ""
        notes.append(f"- {count} ranks: divided takes {ratio:.2f} of the whole{wanted}")
        if count == 2:
            notes += forecast(found)
    return "\n".join([*lines, "", *notes]) + "\n"


def sent(kind: str, count: int, batch: int) -> float:
    """Bytes that a rank sends in a step, float32: a ring sums the weights' gradients, which sends each
    2 (N - 1) / N times; features go to all others, and as many gradients come back. Labels, a few hundred,
    are left out."""
    if kind == "whole":
        return 2 * (count - 1) / count * 4 * WEIGHTS
    return 2 * (count - 1) * batch * 4 * FEATURES


def forecast(found: dict[str, dict[str, float]]) -> list[str]:
    """Time = compute + update + bytes / bandwidth + exchanges x latency."""
    whole, constants = found["whole"], found["constants"]
    lines = [
        f"- measured on 2 ranks: {1e-6 * 6 * BATCH * WEIGHTS / whole['compute']:.0f} GFLOP/s in forward and "
        f"backward, {constants['bandwidth'] / 1e9:.2f} GB/s sent in a sum of 150 MB, "
        f"{constants['latency']:.2f} ms for the sum of one number, {whole['update']:.0f} ms for SGD of all"
    ]
    for count, batch in ((50, 32), (336, 24)):
        compute = whole["compute"] * batch / BATCH  # alike: N times the pictures, an Nth of the classes
        times = {
            kind: compute
            + whole["update"] * share
            + sent(kind, count, batch) / constants["bandwidth"] * 1e3
            + exchanges * constants["latency"]
            for kind, share, exchanges in (("whole", 1.0, 1), ("divided", 1 / count, 3))
        }
        lines.append(
            f"- forecast, {count} ranks x {batch}: {times['divided']:.0f} ms divided, "
            f"{times['whole']:.0f} ms whole ({times['divided'] / times['whole']:.2f}); "
            f"{sent('divided', count, batch) / 1e6:.0f} MB and {sent('whole', count, batch) / 1e6:.0f} MB "
            "sent by a rank"
        )
    return lines


def measure(count: int) -> dict[str, dict[str, float]]:
    """Of both kinds: milliseconds of the parts and bytes sent, on rank 0 of so many; and the constants."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        if code := ranks.launch([sys.executable, "-m", "benchmarks.split", str(out)], count):
            raise RuntimeError(f"benchmark of a divided classifier, {count} ranks: exit code {code}")
        result: dict[str, dict[str, float]] = json.loads(out.read_text())
        return result


def work(out: Path) -> None:
    """What a rank does."""
    import torch

    from hpcscale.train import process

    torch.set_num_threads(1)
    process.keep_memory()
    ranks.init()
    counted = count_bytes()
    steps = {kind: step_of(kind) for kind in ("divided", "whole")}
    times: dict[str, list[list[float]]] = {kind: [] for kind in steps}
    sizes = dict.fromkeys(steps, 0.0)
    for turn in range(WARM + REPEATS):
        for kind, step in steps.items():
            ranks.barrier()
            counted[0] = 0.0
            taken = step(turn)
            sizes[kind] = counted[0]
            times[kind].append([*taken, sum(taken)])
    found = {
        kind: dict(zip(PARTS, (1e3 * np.median(rows[WARM:], axis=0)).tolist(), strict=True))
        | {"bytes": sizes[kind]}
        for kind, rows in times.items()
    }
    number, flat = torch.ones(1), torch.ones(WEIGHTS)
    latency = statistics.median(timed(lambda: ranks.sum_(number)) for _ in range(50))
    took = statistics.median(timed(lambda: ranks.sum_(flat.fill_(1.0))) for _ in range(5))
    sums = sent("whole", ranks.size(), BATCH) / took
    found["constants"] = {"latency": 1e3 * latency, "bandwidth": sums}
    if ranks.rank() == 0:
        out.write_text(json.dumps(found))
    ranks.shutdown()


def timed(function: Callable[[], object]) -> float:
    ranks.barrier()
    began = perf_counter()
    function()
    return perf_counter() - began


def step_of(kind: str) -> Callable[[int], list[float]]:
    """A step of a kind: seconds of all PARTS but the last."""
    import torch
    from torch import nn

    from hpcscale import config, ops
    from hpcscale.labels import hierarchy
    from hpcscale.models import slices
    from hpcscale.train import optim
    from hpcscale.train.divergence import LARGEST, Guard
    from hpcscale.train.gradients import GradientBuckets
    from hpcscale.train.loss import logistic

    torch.manual_seed(0)
    whole = nn.Linear(FEATURES, jft.CLASSES)
    divided = kind == "divided"
    layer = slices.Slice(whole) if divided else whole
    classes = layer.classes if isinstance(layer, slices.Slice) else range(jft.CLASSES)
    body = nn.Parameter(torch.zeros(1))  # buckets want something that all ranks train
    model = nn.ParameterList([body, *layer.parameters()])
    guard = Guard(model)
    buckets = GradientBuckets(model.parameters(), local=tuple(layer.parameters()) if divided else ())
    optimizer = optim.build(model, config.Optimizer())
    optim.set_lr(optimizer, 1e-3)
    tree = hierarchy.build([str(c) for c in range(jft.CLASSES)], jft.parents())
    closure = ops.Closure(np.arange(jft.CLASSES, dtype=np.int32), tree.ancestor_offsets, tree.ancestor_ids)
    rows = torch.zeros(BATCH * (ranks.size() if divided else 1), len(classes))
    targets = ops.TargetRows(closure, classes.start, classes.stop, "ones", rows.numpy())
    random = np.random.default_rng(ranks.rank())
    features = torch.randn(BATCH, FEATURES)

    def step(turn: int) -> list[float]:
        labels = jft.batch(random, BATCH)
        buckets.clear()
        at = [perf_counter()]
        targets.fill(*(slices.all_labels(*labels, BATCH) if divided else labels))
        at.append(perf_counter())
        shown = features.clone().requires_grad_()
        loss = logistic(layer(shown), rows) / (BATCH * ranks.size()) + 0.0 * body.sum()
        loss.backward()
        at.append(perf_counter())
        numbers = buckets.finish(loss.detach(), 0.0)
        at.append(perf_counter())
        optim.step(optimizer, guard.judge(numbers[0], LARGEST, buckets.buckets))
        at.append(perf_counter())
        return np.diff(at).tolist()

    return step


def count_bytes() -> list[float]:
    """From here on, bytes that this rank must send are added up in the list, by what each collective does at
    best: a ring sums, each rank sends its own rows to all others, and of rows to exchange those that are not
    its own."""
    total, count = [0.0], ranks.size()

    def counting(name: str, factor: float, size: Callable[[Any], int]) -> None:
        real = getattr(ranks, name)

        def counted(value: Any, *others: Any) -> Any:
            total[0] += factor * size(value)
            return real(value, *others)

        setattr(ranks, name, counted)

    counting("start_sum", 2 * (count - 1) / count, lambda tensor: tensor.nbytes)
    counting("max_", 2 * (count - 1) / count, lambda tensor: tensor.nbytes)
    counting("gather_rows", count - 1, lambda tensor: tensor.nbytes)
    counting("gather", count - 1, lambda array: array.nbytes)
    counting("exchange_rows", (count - 1) / count, lambda tensor: tensor.nbytes)
    return total


if __name__ == "__main__":
    work(Path(sys.argv[1])) if len(sys.argv) > 1 else print(run())
