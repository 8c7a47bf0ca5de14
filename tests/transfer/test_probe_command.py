"""`hpcscale transfer probe`: its contract, its files, and what it says of bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from test_probe import digits

from hpcscale.cli import main


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["transfer", "probe", *map(str, words)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("features")
    x, y = digits()
    np.savez(folder / "train.npz", x=x[:1200].astype(np.float32), y=y[:1200])
    np.savez(folder / "test.npz", x=x[1200:], y=np.where(np.arange(597) < 7, 11, y[1200:]))
    return folder / "train.npz", folder / "test.npz"


def test_the_contract(files: tuple[Path, Path]) -> None:
    done = run("--features", files[0], "--test", files[1], "--l2", "1e-3", "--knn", 5, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {"objective", "gradient_norm", "gap", "weight_norm", "accuracy", "seconds"} <= set(found)
    assert found["gradient_norm"] <= 1e-8
    assert found["train_accuracy"] > found["accuracy"] > 0.85
    assert found["unseen"] == 7
    assert found["knn_accuracy"] > 0.9
    assert "gap" in run("--features", files[0], "--l2", "1e-3").stdout


def test_several_l2_are_chosen_between_on_the_held_out_part(files: tuple[Path, Path]) -> None:
    done = run("--features", files[0], "--l2", "1e-3", "--l2", "1e4", "--held-out", "0.2", "--json")
    found = json.loads(done.stdout)
    assert found["l2"] == 1e-3
    assert [one["l2"] for one in found["path"]] == [1e4, 1e-3]


def test_the_weights_are_kept(files: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.npz", "a.safetensors"):
        for _ in range(2):  # what it wrote it may replace
            assert run("--features", files[0], "--l2", "1e-3", "--out", tmp_path / name).exit_code == 0
    one, other = dict(np.load(tmp_path / "a.npz")), load_file(tmp_path / "a.safetensors")
    for name in ("weights", "bias", "classes"):
        assert np.array_equal(one[name], other[name])
    x, y = (np.load(files[0])[name] for name in "xy")
    assert (other["classes"][(x @ other["weights"] + other["bias"]).argmax(1)] == y).mean() > 0.97
    (tmp_path / "b.npz").write_bytes(files[0].read_bytes())
    assert run("--features", files[0], "--l2", "1", "--out", tmp_path / "b.npz").exit_code == 2
    assert run("--features", files[0], "--l2", "1", "--out", tmp_path / "b.pt").exit_code == 2


def test_what_is_not_reached_ends_with_an_error(files: tuple[Path, Path]) -> None:
    done = run("--features", files[0], "--l2", "1e-3", "--tolerance", "1e-30", "--json")
    assert done.exit_code == 1
    assert "not converged" in done.stderr
    assert json.loads(done.stdout)["converged"] is False


X, Y = np.ones((4, 2)), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X[0], "y": Y}, "x has shape (2,)"),
        ({"x": X.astype(int), "y": Y}, "x is int64"),
        ({"x": X * np.nan, "y": Y}, "x[0, 0] is nan"),
        ({"x": X, "y": Y[:3]}, "y has shape (3,), expected (4,)"),
        ({"x": X, "y": Y - 1}, "y[0] is -1"),
        ({"x": X, "y": Y.astype(float)}, "y is float64"),
        ({"x": X, "y": Y * 0}, "at least two classes, found 1"),
        ({"x": X, "y": Y.astype(object)}, "not a .npz of plain arrays"),
        ({"x": X}, "no array y, expected x and y, found x"),
    ],
)
def test_bad_features_are_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", allow_pickle=True, **arrays)
    done = run("--features", tmp_path / "f.npz", "--l2", "1")
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_bad_files_and_options_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(files[0].read_bytes()[:2000])
    np.savez(tmp_path / "wide.npz", x=X, y=Y)
    for words, message in [
        (["--l2", 1], "name a SOURCE with --config, or --features F.npz"),
        (["--features", files[0]], "--features needs --l2"),
        (["random"], "name a SOURCE with --config"),
        (["random", "--features", files[0], "--l2", 1], "two sources"),
        (["random", "--config", "t.toml", "--l2", 1], "--l2 goes with --features"),
        (["random", "--config", "t.toml", "--solver", "lbfgs"], "--solver goes with --features"),
        (["random", "--config", "t.toml", "--held-out", 0.1], "--held-out goes with --features"),
        (["--features", files[0], "--l2", 1, "--l2", 2, "--solver", "sgd"], "sgd takes one l2, found 2"),
        (["--l2", 1, "--features", tmp_path / "f.npz"], "not a .npz"),
        (["--l2", 0, "--features", files[0]], "0"),
        (["--l2", "nan", "--features", files[0]], "finite"),
        (["--l2", 1, "--features", files[0], "--test", tmp_path / "wide.npz"], "2 columns, expected 64"),
        (["--l2", 1, "--features", files[0], "--knn", 1200], "from 1 to the 1199"),
    ]:
        done = run(*words)
        assert done.exit_code in (1, 2)
        assert message in done.stderr
