"""Runs that are stopped: by every signal, at once by a second one, and continued with the same bits."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from runs import assert_same_bits, start

from hpcscale.inputs import pipeline
from hpcscale.models import checkpoint
from hpcscale.train import loop
from hpcscale.train.pretrain import train
from hpcscale.train.signals import StopRequest


def test_every_signal_saves_and_the_same_call_ends_with_the_same_bits(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped three times, in the first step of each call."""
    real = pipeline.train_batches
    for stops, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), 1):

        def signalling(*arguments: Any, by: int = number, **keys: Any) -> Iterator[pipeline.Batch]:
            signal.raise_signal(by)
            yield from real(*arguments, **keys)

        before = signal.getsignal(number)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "train_batches", signalling)
            with pytest.raises(loop.Interrupted, match=f"stopped after step {stops}"):
                train(tiny.settings(recipe), tmp_path)
        assert signal.getsignal(number) is before
    train(tiny.settings(recipe), tmp_path)
    assert_same_bits(tmp_path, whole)


def test_in_a_job_only_the_first_signal_does_anything() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest(job=True) as stop:
            assert not stop.requested
            for _ in range(3):  # from Slurm, from Apptainer, from srun
                signal.raise_signal(signal.SIGTERM)
            assert stop.requested
        signal.raise_signal(signal.SIGTERM)  # while it leaves with its exit code
    finally:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


def test_second_signal_acts_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_signal_to_the_launcher_ends_with_75_and_the_same_command_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    words = ("--set", "train.log_every=1000", "--set", "train.checkpoint_every=3")
    process = start(recipe, tmp_path, *words, "--set", "train.steps=500")
    while checkpoint.latest(tmp_path) is None:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, "the same command goes on" in output) == (75, True), output
    stopped = checkpoint.latest(tmp_path)
    assert stopped is not None
    end = tiny.events(tmp_path, "end")[0]
    assert (end["step"], end["reason"]) == (stopped.step, "interrupted")
    assert 3 <= stopped.step < 500
