"""Steps wait for the device only where it is marked, and a rank's memory does not grow with them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import regression
import tiny
import torch

from hpcscale.train import optim
from hpcscale.train.pretrain import train

# On a GPU, each of these waits until it has computed the number.
WAITS = ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__")
# Where that may be: what the host must know of a step (a step late on a GPU), and what is saved.
MARKED = {"readback.py take", "scaling.py state", "checkpoint.py save", "state.py save"}


def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where in the package numbers of tensors are read from here on: file and function."""
    found: list[str] = []

    def watched(real: Any) -> Any:
        def read(tensor: torch.Tensor, *arguments: Any) -> Any:
            frame: Any = sys._getframe(1)
            while frame is not None:
                code = frame.f_code
                if "/hpcscale/" in code.co_filename and not code.co_name.startswith("<"):
                    found.append(f"{Path(code.co_filename).name} {code.co_name}")
                    break
                frame = frame.f_back
            return real(tensor, *arguments)

        return read

    for name in WAITS:
        monkeypatch.setattr(torch.Tensor, name, watched(getattr(torch.Tensor, name)))
    return found


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer__name": "rmsprop", "train__average": 0.9, "divergence__spike": 9.0},
        {"train__mixup": 0.4, "model__dropout": 0.5, "optimizer__decay_to": "initial"},
        {"train__precision": "float16", "train__accumulate": 2, "downpour__workers": 2, "downpour__push": 2},
    ],
    ids=["rmsprop", "regularized", "float16"],
)
def test_a_step_waits_only_where_it_is_marked(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    real = optim.build

    def as_on_a_gpu(*arguments: Any) -> Any:
        optimizer = real(*arguments)
        optimizer.waits = False
        return optimizer

    monkeypatch.setattr(optim, "build", as_on_a_gpu)
    settings = tiny.settings(recipe, train__steps=3, train__checkpoint_every=100, **keys)
    found = places(monkeypatch)
    train(settings, tmp_path)
    assert set(found) <= MARKED | {"classify.py evaluate_set"}, found
    assert found.count("readback.py take") == 3


GROWTH = 1.0  # MB that 1,500 steps may add; batches that are kept add more, and so do losses


@pytest.mark.slow
def test_memory_does_not_grow_over_2000_steps(recipe: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(regression.__file__).parent)!r})
import regression
from hpcscale import config
from hpcscale.inputs.plan import resident
from hpcscale.train.log import Report
real = Report.step
def step(self, number, loss):
    if number % 500 == 0:
        print("resident", number, resident())
    real(self, number, loss)
Report.step = step
sets = ["train.steps=2000", "train.log_every=1000", "train.checkpoint_every=5000", "data.held_out=0.3"]
regression.train(config.load(Path({str(recipe)!r}), sets), Path({str(tmp_path / "run")!r}))
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    sizes = [float(size) for size in re.findall(r"resident \d+ ([\d.]+)", done.stdout)]
    assert len(sizes) == 4
    assert sizes[-1] - sizes[0] < GROWTH, sizes
