"""Runs as tests start them and look at them: a command, a first step, samples that are seen, weights."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcscale import config
from hpcscale.inputs import pipeline
from hpcscale.models import checkpoint
from hpcscale.train import run_folder


def weights(run: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    """The tensors of model and optimizer in the newest checkpoint, or in that of a step."""
    found = checkpoint.latest(run) if step is None else next(checkpoint.whole(run, lambda s: s == step))
    assert found is not None
    model, optimizer = checkpoint.load(found)
    return model | {f"optimizer.{name}": value for name, value in optimizer.items()}


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def start(recipe: Path, run: Path, *words: str) -> "subprocess.Popen[str]":
    """The command of a training on two ranks."""
    command = [sys.executable, "-m", "hpcscale", "train", str(run), "--config", str(recipe), "--ranks", "2"]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def begin(run: Path, settings: config.Config) -> None:
    """As a run leaves its folder that was killed after its first step."""
    run_folder.keep(run, settings)
    (run / "log.jsonl").write_text('{"event": "first_step", "step": 0}\n')


def watch_samples(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Samples of every training batch from here on."""
    seen: list[list[int]] = []
    real = pipeline.train_batches

    def watched(*arguments: Any, **keys: Any) -> Iterator[pipeline.Batch]:
        for batch in real(*arguments, **keys):
            seen.append(batch.samples.tolist())
            yield batch

    monkeypatch.setattr(pipeline, "train_batches", watched)
    return seen
