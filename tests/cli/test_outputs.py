"""What a user names as an output: never an input, never a foreign file; the same command again is fine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpcscale import config
from hpcscale.cli import main
from hpcscale.cluster.image import build
from hpcscale.data.parts import parts_folder, remove_parts
from hpcscale.evaluate import evaluations
from hpcscale.files import OutputError
from hpcscale.train import run_folder
from tests.fuzz import world


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.make(folder)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


def run(command: str) -> Result:
    return CliRunner().invoke(main, command.split())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Command with the place of its output, and the files that it writes, of which the first is named.
COMMANDS = {
    "hash": ("dedup hash pictures OUT --workers 1", [""]),
    "search": ("dedup search a.h5 b.h5 --radius 60 --min-quality 0 --out OUT", ["", ".json"]),
    "drop": ("dedup drop pairs.tsv --side a --out OUT", [""]),
    "gallery": ("dedup gallery pairs.tsv OUT --a pictures --b data", [""]),
    "merge": ("dedup decisions merge decisions.jsonl --out OUT", [""]),
    "calibrate": (
        "dedup calibrate pictures OUT --samples 4 --workers 1",
        ["/calibration.md", "/calibration.csv", "/calibration.png"],
    ),
    "show": ("data show data --out OUT", [""]),
    "labels": ("labels build OUT --data data --parents tree.tsv", [""]),
    "stats": (
        "labels stats vocabulary.json --data data --out OUT",
        ["/stats.json", "/stats.md", "/classes.csv", "/frequency.png", "/labels.png"],
    ),
    "classes": ("labels classes vocabulary.json --with classes.txt --most 1 --out OUT", [""]),
    "precision": ("labels precision data --vocabulary vocabulary.json --sample 4 --out OUT", [""]),
    "report": ("report run run2 --out OUT.md", [".md", "-curves.png"]),
    "probe": ("transfer probe --features train.npz --l2 0.1 --out OUT.npz", [".npz"]),
    "layout": (
        "transfer layout task OUT",
        [f"/{name}" for name in ("split.json", "manifest.jsonl", "classes.tsv", "test.txt", "val200.jsonl")],
    ),
    "split": (
        "transfer layout data OUT --train 4 --val 2",
        ["/split.json", "/train4.txt", "/val2.jsonl"],
    ),
    "sprites": (
        "transfer sprites OUT --count 2",
        ["/manifest.jsonl", "/dSpr-loc.tsv", "/dSpr-ori.tsv"],
    ),
    "compose": (
        "robustness compose objects backgrounds OUT",
        ["/composition.json", "/manifest.jsonl", "/attributions.csv"],
    ),
    "mistakes": ("transfer mistakes run OUT", [""]),
    "raters": ("transfer raters export run OUT", ["/votes.csv", "/page.html"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_users_file_is_left_as_it_is(name: str, place: Path) -> None:
    shutil.copytree("run", "run2")
    command, written = COMMANDS[name]
    for ending in written:
        out = place / "new"
        victim = Path(f"{out}{ending}")
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("the work of a week\n")
        before = snapshot(place)
        result = run(command.replace("OUT", str(out)))
        assert result.exit_code in (1, 2), result.output
        assert str(victim) in result.output
        assert snapshot(place) == before
        victim.unlink()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_again_ends_with_the_same_bytes(name: str, place: Path) -> None:
    shutil.copytree("run", "run2")
    command, written = COMMANDS[name]
    command = command.replace("OUT", str(place / "new"))
    first = run(command)
    assert first.exit_code == 0, first.output
    before = snapshot(place)
    assert {f"{place / 'new'}{ending}" for ending in written} <= set(before)
    assert run(command).exit_code == 0
    assert snapshot(place) == before


@pytest.mark.parametrize(
    "command",
    [
        "dedup hash pictures pictures/0.jpg",
        "dedup hash data data/shard-00000.h5",
        "dedup hash data data/new.h5",
        "transfer probe --features train.npz --l2 0.1 --out train.npz",
        "transfer probe --features train.npz --test test.npz --l2 0.1 --out test.npz",
        "transfer layout task task",
        "transfer layout task task/new",
        "transfer layout data data --train 4 --val 2",
        "transfer sprites data",
        "transfer mistakes run data/page.html",
        "transfer mistakes run embeddings.h5 --embeddings embeddings.h5 --training embeddings.h5",
        "transfer raters export run data/rating",
        "transfer finetune run --config transfer.toml --out data",
        "transfer search random --config transfer.toml --out data/new",
        "transfer hyperrule run --config transfer.toml --out run",
        "transfer probe random --config transfer.toml --out transfer.toml",
        "dedup search a.h5 b.h5 --out a.h5",
        "dedup search a.h5 b.h5 --out b.h5",
        "dedup search a.h5 --out link.h5",
        "dedup drop pairs.tsv --side a --out pairs.tsv",
        "dedup drop pairs.tsv --side a --decisions decisions.jsonl --out decisions.jsonl",
        "dedup gallery pairs.tsv pairs.tsv --a pictures",
        "dedup gallery pairs.tsv pictures/0.jpg --a pictures",
        "dedup gallery pairs.tsv data/page.html --a pictures --b data",
        "dedup decisions merge decisions.jsonl --out decisions.jsonl",
        "dedup decisions merge decisions.jsonl merged.jsonl --out merged.jsonl",
        "dedup calibrate pictures pictures",
        "data show data --out data/shard-00000.h5",
        "data show data --out data/sheet.png",
        "labels build tree.tsv --data data --parents tree.tsv --force",
        "labels build manifest.csv --manifest manifest.csv --parents tree.tsv --force",
        "labels build data/plan.json --data data --parents tree.tsv --force",
        "labels classes vocabulary.json --most 1 --out vocabulary.json",
        "labels classes vocabulary.json --with classes.txt --out classes.txt",
        "report run run2 --out run/config.json",
        "report run run2 --out run/log.jsonl",
    ],
)
def test_an_output_is_no_input(command: str, place: Path) -> None:
    shutil.copytree("run", "run2")
    os.link("a.h5", "link.h5")
    assert run("dedup decisions merge decisions.jsonl --out merged.jsonl").exit_code == 0
    before = snapshot(place)
    result = run(command)
    assert result.exit_code == 2, result.output
    assert snapshot(place) == before


def test_reports_in_the_run_folder_are_ours_or_left(place: Path) -> None:
    assert run("report run").exit_code == 0
    for name in ("report.md", "report-curves.png", "report-pictures-held_out.png"):
        file = place / "run" / name
        content = file.read_bytes()
        file.write_bytes(b"mine")
        assert run("report run").exit_code == 2
        assert file.read_bytes() == b"mine"
        file.write_bytes(content)
    with (place / "run" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"event": "step", "step": 3, "loss": 0.1}) + "\n")
    assert run("report run").exit_code == 0  # a run goes on, and its report is made anew


def test_what_differs_is_refused_where_it_cannot_be_told_whose_it_is(place: Path) -> None:
    out = place / "drop2.txt"
    assert run("dedup drop pairs.tsv --side a --out drop2.txt").exit_code == 0
    before = out.read_bytes()
    assert before
    result = run("dedup drop pairs.tsv --side a --radius 0 --out drop2.txt")
    assert (result.exit_code, "is there already and differs" in result.output) == (2, True)
    assert out.read_bytes() == before
    assert run("dedup search a.h5 b.h5 --radius 0 --out pairs.tsv").exit_code == 2
    assert (place / "pairs.tsv.parts").exists()  # what was found is kept for the next try
    (place / "pairs.tsv").unlink()
    assert run("dedup search a.h5 b.h5 --radius 0 --out pairs.tsv").exit_code == 0


def test_decisions_are_replaced_only_where_merge_wrote_them(place: Path) -> None:
    line = {"a": "x", "b": "y", "decision": "reject", "reviewer": "bob", "time": ""}
    (place / "bob.jsonl").write_text(json.dumps(line) + "\n")
    assert run("dedup decisions merge decisions.jsonl --out bob.jsonl").exit_code == 2
    assert json.loads((place / "bob.jsonl").read_text()) == line
    assert run("dedup decisions merge decisions.jsonl --out all.jsonl").exit_code == 0
    assert run("dedup decisions merge decisions.jsonl bob.jsonl --out all.jsonl").exit_code == 0
    assert '"x"' in (place / "all.jsonl").read_text()


def test_links_and_folders_are_refused(place: Path) -> None:
    (place / "dangling").symlink_to("nothing")
    (place / "folder").mkdir()
    for out in ("dangling", "folder"):
        assert run(f"dedup drop pairs.tsv --side a --out {out}").exit_code == 2
    assert not (place / "nothing").exists()
    assert run("dedup drop pairs.tsv --side a --out tree.tsv/new").exit_code == 2
    (place / "empty").touch()
    assert run("dedup drop pairs.tsv --side a --out empty").exit_code == 0
    assert run("dedup drop pairs.tsv --side a --out new/deep/drop.txt").exit_code == 0


def test_parts_of_the_user_stay(place: Path) -> None:
    for command, out in (
        ("dedup hash pictures new.h5 --workers 1", "new.h5"),
        ("dedup search a.h5 b.h5 --out new.tsv", "new.tsv"),
    ):
        mine = place / f"{out}.parts" / "thesis.txt"
        mine.parent.mkdir()
        mine.write_text("mine")
        assert run(command).exit_code == 2
        assert (mine.read_text(), (place / out).exists()) == ("mine", False)
        mine.unlink()
        assert run(command).exit_code == 0
        assert not mine.parent.exists()
        mine.parent.mkdir()
        mine.write_text("mine")
        (mine.parent / "00000.h5").write_text("left")
        run(command)
        assert mine.read_text() == "mine"


def test_only_parts_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = parts_folder(out)
    ours = ["00000.h5", "00001.h5.node-0123abcd.tmp", "task.json", "0-0.pairs", "4-all.pairs", "piece-3",
            ".lock", ".lock-0-9", "0-4.pairs.node-1-0123abcd.tmp"]  # fmt: skip
    for name in ours:
        (folder / name).touch()
    assert parts_folder(out) == folder
    (folder / "0.pairs").touch()
    with pytest.raises(OutputError, match=r"0\.pairs"):
        parts_folder(out)
    remove_parts(out)
    assert os.listdir(folder) == ["0.pairs"]


def test_an_evaluation_is_replaced_and_a_users_files_in_it_stay(place: Path) -> None:
    folder = place / "run" / "evaluations" / "held_out-00000002"
    results, names = evaluations.read(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("mine too")
    thumbnails = results.samples, results.samples
    evaluations.save(folder, {"step": 3}, [], results, names, thumbnails)
    assert json.loads((folder / "metrics.json").read_text()) == {"step": 3}
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "more" / "notes.txt").read_text() == "mine too"
    assert os.listdir(folder.parent) == [folder.name]


def test_a_folder_that_no_run_began_is_not_trained_in(place: Path) -> None:
    settings = config.load(place / "recipe.toml", [])
    for name in ("log.jsonl", "checkpoints", "evaluations"):
        folder = place / f"with-{name}"
        (folder / name).mkdir(parents=True)
        with pytest.raises(run_folder.RunError, match=name):
            run_folder.agree(folder, settings)
        assert os.listdir(folder) == [name]
    (place / "notes").mkdir()
    (place / "notes" / "config.json").write_text("the work of a week")
    with pytest.raises(config.ConfigError, match=r"notes/config\.json: cannot be read"):
        run_folder.agree(place / "notes", settings)


def test_nothing_but_ingest_writes_into_a_data_set(place: Path) -> None:
    before = snapshot(place)
    for file in ("quarantine.jsonl", "new.jsonl"):  # the first one is empty
        result = run(f"dedup decisions merge decisions.jsonl --out data/{file}")
        assert (result.exit_code, "lies in a data set" in result.output) == (2, True), result.output
    assert snapshot(place) == before


def test_the_demo_makes_its_pictures_in_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "demo" / "pictures").mkdir(parents=True)
    (tmp_path / "demo" / "pictures" / "mine.jpg").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "hpcscale.demos.chain", "--out", tmp_path / "demo"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "mine.jpg" in done.stderr) == (2, True), done.stderr
    assert os.listdir(tmp_path / "demo" / "pictures") == ["mine.jpg"]


@pytest.mark.parametrize("method", ["finetune", "search", "hyperrule", "probe"])
def test_a_transfer_is_refused_before_any_work_where_a_users_files_lie(method: str, place: Path) -> None:
    """Its results come at the end, perhaps after days."""
    command = f"transfer {method} run --config transfer.toml --set data.train=nowhere --out new"
    for name in ("transfer.json", "trials.jsonl", "curve.csv", "last-0/config.json"):
        victim = place / "new" / name
        victim.parent.mkdir(parents=True, exist_ok=True)
        victim.write_text("the work of a week\n")
        before = snapshot(place)
        result = run(command)
        assert result.exit_code == 2, result.output
        assert f"new/{name}" in result.output
        assert snapshot(place) == before
        victim.unlink()
    assert "nowhere: not a data-set folder" in run(command).output  # now it would begin


def test_an_image_replaces_images_only(tmp_path: Path) -> None:
    for name in ("a.sif", "a.sif.json", "a.sif.cdx.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=name):
            build("cpu", tmp_path / "a.sif")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
