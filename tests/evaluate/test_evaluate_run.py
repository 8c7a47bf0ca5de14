"""`hpcscale evaluate` and `hpcscale report` on a run with real data, network and checkpoint, not trained."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hpcscale import config
from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.classify import evaluate_run, open_set
from hpcscale.ingest.packing import ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.models import checkpoint, resnet
from hpcscale.samples.chosen import open_vocabulary

PICTURES = 13
TAGS = ("apple", "pear", "dog")
TREE = ("thing", "fruit", "apple", "pear", "dog")
PARENTS = ((), (0,), (1,), (1,), (0,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run folder after two steps, as the training loop would leave it."""
    folder = tmp_path_factory.mktemp("evaluate")
    source = folder / "pictures"
    source.mkdir()
    chance = np.random.default_rng(0)
    lines = []
    for i in range(PICTURES):
        pixels = chance.integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(source / f"{i}.jpg")
        tags = [TAGS[i % 3]] if i % 4 else [TAGS[i % 3], TAGS[(i + 1) % 3]]
        lines.append(json.dumps({"image": f"{i}.jpg", "tags": tags}) + "\n")
    (source / "manifest.jsonl").write_text("".join(lines))
    ingest(source, folder / "data", workers=1)
    data = open_data(folder / "data")
    labels = build.from_hierarchy(data.tags, build.walk(data), hierarchy.build(TREE, PARENTS))
    vocabulary.save(labels, folder / "vocabulary.json")
    settings = config.check(
        config.Config,
        {
            "data": {
                "train": str(folder / "data"),
                "vocabulary": str(folder / "vocabulary.json"),
                "held_out": 0.4,
            },
            "input": {"crop": 32, "resize": 40},
            "schedule": {"lr": 0.1},
            "train": {"steps": 2, "batch": 4, "device": "cpu"},
        },
        "test",
    )
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(config.dump(settings))
    torch.manual_seed(0)
    model = resnet.build(settings.model, len(TREE))
    checkpoint.save(run, 2, model.state_dict(), {}, {}, keep=1)
    return run


def run_cli(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_two_sets_are_the_data_and_share_nothing(made):
    settings = config.read(made / "config.json")
    labels = open_vocabulary(settings)
    train, held_out = (open_set(settings, name, labels).samples for name in ("train", "held_out"))
    assert sorted([*train, *held_out]) == list(range(PICTURES))
    assert held_out.size == 5


def test_the_folder_holds_every_sample_with_its_labels(made):
    folder = evaluate_run(made, "train", batch=3)
    assert folder == made / "evaluations" / "train-00000002"
    results, names = evaluations.read(folder)
    assert len(names) == len(set(names)) == 8
    _, digests = evaluations.read_names(folder)
    for row, name in enumerate(names):
        picture = (made.parent / "pictures" / name).read_bytes()
        assert digests[row].tobytes() == hashlib.blake2b(picture, digest_size=16).digest()
        i = int(name.removesuffix(".jpg"))
        tags = {TAGS[i % 3]} if i % 4 else {TAGS[i % 3], TAGS[(i + 1) % 3]}
        held = {TREE[c] for c in results.labels[slice(*results.label_offsets[row : row + 2])]}
        assert held == tags | {"thing"} | ({"fruit"} if tags - {"dog"} else set())
        assert results.truths[row] == (TREE.index(tags.pop()) if i % 4 else -1)
    assert set(results.guesses.ravel().tolist()) == {2, 3, 4}
    assert np.load(folder / "thumbnails.npz")["pixels"].shape == (8, 128, 128, 3)


def test_evaluate_prints_a_table_or_json(made):
    table = run_cli("evaluate", made)
    assert table.exit_code == 0, table.output
    assert "**held_out**, after step 2: 5 pictures" in table.stdout
    assert table.stdout.endswith(f"{made}/evaluations/held_out-00000002\n")
    found = json.loads(run_cli("evaluate", made, "--json", "--batch", 2).stdout)
    assert (found["set"], found["step"], found["unreadable"]) == ("held_out", 2, 0)
    assert found["metrics"]["samples"] == 5
    assert found["baseline"]["map100"] > 0
    assert f"| {found['metrics']['map100']:.3f} |" in table.stdout


def test_report_prints_the_table_and_its_path(made):
    evaluate_run(made, "held_out")
    result = run_cli("report", made)
    assert result.exit_code == 0, result.output
    assert "mAP@100 by class, weighted" in result.stdout
    assert result.stdout.splitlines()[-1] == str(made / "report.md")
    assert "![Pictures of held_out" in (made / "report.md").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "config.json"),
        (lambda run: (run / "checkpoints" / "step-00000002.json").unlink(), "no checkpoint to evaluate"),
    ],
)
def test_a_run_that_cannot_be_evaluated_is_wrong_usage(made, tmp_path, spoil, message):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for file in ("config.json", "checkpoints/step-00000002.json", "checkpoints/step-00000002.safetensors"):
        (run / file).symlink_to(made / file)
    spoil(run)
    result = run_cli("evaluate", run)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (run / "evaluations").exists()


def test_a_set_that_is_not_configured_is_wrong_usage(made):
    result = run_cli("evaluate", made, "--set", "validation")
    assert result.exit_code == 2
    assert "data.validation is not configured" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_ranks_find_what_one_finds(made, count):
    alone = json.loads(run_cli("evaluate", made, "--json", "--batch", 2).stdout)
    one, names = evaluations.read(made / "evaluations" / "held_out-00000002")
    words = ["evaluate", made, "--json", "--batch", "2", "--ranks", str(count)]
    command = [sys.executable, "-m", "hpcscale", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    several, their_names = evaluations.read(made / "evaluations" / "held_out-00000002")
    assert their_names == names
    assert (several.samples == one.samples).all()
    assert (several.classes == one.classes).all()
    np.testing.assert_allclose(several.scores, one.scores, atol=1e-5)
    assert together["baseline"] == alone["baseline"]
    assert together["metrics"].pop("loss") == pytest.approx(alone["metrics"].pop("loss"), rel=1e-6)
    assert together["metrics"] == alone["metrics"]
