"""`hpcscale models list` and `show`: the names of a recipe, sizes of every one, and no torch."""

import json
import subprocess
import sys
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from places import GOLDEN

from hpcscale import config
from hpcscale.cli import main
from hpcscale.models import memory

KNOWN = json.loads((GOLDEN / "complexity.json").read_text())


def told(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["models", *words, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_list_has_every_name_and_its_known_sizes() -> None:
    rows = {row["name"]: row for row in told("list")["models"]}
    assert set(rows) == set(get_args(config.Model.model_fields["name"].annotation)) == set(KNOWN)
    for name, known in KNOWN.items():
        assert (rows[name]["parameters"], rows[name]["body_parameters"]) == (
            known["parameters"],
            known["body"],
        )
    printed = CliRunner().invoke(main, ["models", "list"]).output.splitlines()
    assert len(printed) == 1 + len(KNOWN)
    assert printed[1].split() == ["resnet50", "25.6", "23.5", "4,089.2", "11.1"]


def test_show_tells_sizes_and_the_memory_of_a_step() -> None:
    found = told("show", "resnet50")
    assert found.items() >= {
        "name": "resnet50", "classes": 1000, "side": 224, "parameters": 25_557_032,
        "body_parameters": 23_508_032, "multiply_adds": 4_089_184_256, "activations": 11_113_984,
    }.items()  # fmt: skip
    size = found["step"]["bytes"]
    assert size.pop("total") == sum(size.values())
    assert size == memory.needed(config.Model(), memory.Step(1000, 224, 32))._asdict()
    assert size["gradients"] == size["optimizer"] == 4 * 25_557_032
    assert size["inputs"] == 32 * 3 * 224**2 * (3 + 4)


def test_what_a_recipe_may_say_has_a_size() -> None:
    for options, section, key in (
        (memory.BYTES, config.Train, "precision"),
        (memory.STATE, config.Optimizer, "name"),
    ):
        assert set(options) == set(get_args(section.model_fields[key].annotation))


def test_show_follows_its_options() -> None:
    words = "show bit_r50x3 --classes 18291 --side 299 --batch 8 --precision bfloat16 --optimizer rmsprop"
    found = told(
        *words.split(), "--loss", "softmax", "--slices", "50", "--stride", "1x1", "--output-stride", "8",
        "--decay-to", "initial",
    )  # fmt: skip
    model = config.Model(name="bit_r50x3", stride="1x1", output_stride=8)
    step = memory.Step(18_291, 299, 8, "bfloat16", "rmsprop", "softmax", 50, "initial")
    assert found["step"].pop("bytes") == memory.needed(model, step)._asdict() | {
        "total": memory.needed(model, step).total
    }
    assert (found["side"], found["stride"], found["output_stride"]) == (299, "1x1", 8)
    assert found["step"] == {
        "batch": 8,
        "precision": "bfloat16",
        "optimizer": "rmsprop",
        "loss": "softmax",
        "slices": 50,
        "decay_to": "initial",
    }
    printed = CliRunner().invoke(main, ["models", *words.split()]).output
    assert "bit_r50x3, 18,291 classes, pictures of 299 x 299" in printed
    assert "a training step of 8 on one rank, bfloat16, rmsprop, logistic; MB" in printed


def test_a_divided_classifier_is_a_part() -> None:
    """18,291 classes in 50 slices: 366 rows each, of weights and all that goes with them."""
    whole, part = (
        memory.needed(config.Model(), memory.Step(18_291, 299, 32, optimizer="rmsprop", slices=slices))
        for slices in (1, 50)
    )
    assert whole.gradients - part.gradients == 4 * 2049 * (18_291 - 366)
    assert whole.optimizer - part.optimizer == 8 * 2049 * (18_291 - 366)
    assert (whole.targets, part.targets) == (8 * 32 * 18_291, 8 * 32 * 50 * 366)


@pytest.mark.parametrize(
    "words",
    [["show", "resnet49"], ["show", "resnet50", "--side", "0"], ["show", "resnet50", "--precision", "x"]],
)
def test_other_words_are_refused(words: list[str]) -> None:
    assert CliRunner().invoke(main, ["models", *words]).exit_code == 2


def test_no_torch_is_imported() -> None:
    code = """
import sys
from hpcscale.cli import main
for words in (["models", "list"], ["models", "show", "bit_r152x4"]):
    main(words, standalone_mode=False)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "horovod"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
