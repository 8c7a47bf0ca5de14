"""robustness/evaluate.py, mapping.py and result.py: which guesses are right, and the accuracies, by hand."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import thin
import tiny
from click.testing import CliRunner, Result
from cut_outs import background, make
from thin import own_settings

from hpcscale.cli import main
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.sets import EvaluateError
from hpcscale.files import FileError, OutputError
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import vocabulary
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.robustness import mapping, result
from hpcscale.robustness.compose import Settings, compose
from hpcscale.robustness.evaluate import Options, evaluate
from hpcscale.robustness.result import Predicted, measured
from hpcscale.train.pretrain import train

LABELS = Vocabulary(
    classes=("animal", "zebra", "sofa", "studio couch", "limousine"),
    parents=((), (0,), (), (2,), ()),
    senses=(("n1",), ("n02391049",), (), (), ()),
    tags={"animal": 0, "zebra": 1, "sofa": 2, "studiocouch": 3, "stretchlimo": 4},
    counts=(5, 5, 5, 5, 5),
    samples=9,
    labelled=9,
    about={},
)


class Judged(SimpleNamespace):
    run: Path  # validated on the composed pictures, packed
    composed: Path


@pytest.fixture(scope="module", autouse=True)
def _thin_network() -> Iterator[None]:
    with thin.network(), own_settings():
        yield


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("judged")
    sizes = {f"b{number}": (40 + number, 70) for number in range(7)}
    compose(*make(folder, sizes), folder / "composed", Settings(format="png"))
    ingest(folder / "composed", folder / "packed", packing=Packing(40), workers=1)
    recipe = tiny.make(folder)
    with thin.network(), own_settings():
        train(tiny.settings(recipe, data__validation=str(folder / "packed")), folder / "run")
    return Judged(run=folder / "run", composed=folder / "composed")


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["robustness", "evaluate", *map(str, words), "--workers", "1"])


def predicted(of: str, foreground: str, background: str, right: str) -> Predicted:
    """right: 1 or 0 for each guess."""
    return Predicted(
        image=f"{foreground}/{background}", of=of, foreground=foreground, background=background,
        guesses=tuple("abcde"[: len(right)]), probabilities=(0.1,) * len(right),
        right=tuple(each == "1" for each in right),
    )  # fmt: skip


def test_row_55_accuracies_by_hand() -> None:
    found = measured(
        (
            predicted("zebra", "z1", "beach", "10000"),
            predicted("zebra", "z1", "sky", "00001"),
            predicted("zebra", "z2", "beach", "00000"),
            predicted("zebra", "z2", "sky", "01001"),
            predicted("sofa", "s1", "beach", "00000"),
            predicted("sofa", "s1", "sky", "11000"),
        )
    )

    def numbers(group):
        return [(one.name, one.pictures, one.top1, one.top5) for one in group]

    assert numbers([found["all"]]) == [("", 6, 2 / 6, 4 / 6)]
    assert numbers(found["by_class"]) == [("sofa", 2, 1 / 2, 1 / 2), ("zebra", 4, 1 / 4, 3 / 4)]
    assert numbers(found["by_foreground"]) == [
        ("s1", 2, 1 / 2, 1 / 2), ("z1", 2, 1 / 2, 1), ("z2", 2, 0, 1 / 2)
    ]  # fmt: skip
    assert numbers(found["by_background"]) == [("beach", 3, 1 / 3, 1 / 3), ("sky", 3, 1 / 3, 1)]


def test_row_55_a_run_gets_the_accuracy_that_its_own_evaluation_has_on_the_same_pictures(
    judged: Judged, tmp_path: Path
) -> None:
    file, found = evaluate(judged.run, judged.composed, Options(batch=3, workers=1))
    assert file == judged.run / "robustness" / "composed-00000006.json"
    which, step, folder = evaluations.find(judged.run)
    results, names = evaluations.read(folder)
    classes = [one.name for one in evaluations.read_classes(folder)]
    metrics = evaluations.read_summary(folder).metrics
    assert (which, step, metrics["single"]) == ("validation", 6, 28)
    assert (found.all.pictures, found.all.top1, found.all.top5) == (28, metrics["top1"], metrics["top5"])
    assert found.in_context is not None
    assert found.in_context.model_dump() == {
        "set": "validation", "step": 6, "top1": metrics["top1"], "top5": metrics["top5"]
    }  # fmt: skip
    assert [one.image for one in found.pictures] == names
    for row, one in enumerate(found.pictures):
        guesses = results.guesses[row]
        assert one.guesses == tuple(classes[c] for c in guesses)
        assert one.right == tuple(c == results.truths[row] for c in guesses)
        scores = dict(zip(results.classes[row].tolist(), results.scores[row].tolist(), strict=True))
        logits = np.array([scores[c] for c in guesses.tolist()])
        assert np.allclose(one.probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)  # the loss is logistic
    assert 0 < found.all.top1 < 1
    assert (found.architecture, found.upstream, found.run) == ("resnet50", "random", "run")
    assert result.read(file) == found
    assert [each.name for each in (judged.run / "robustness").iterdir()] == [file.name]


def test_row_55_the_command_prints_tables_or_json_with_the_same_numbers(
    judged: Judged, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.tsv"
    classes.write_text("foreground\tclasses\trelation\napple\tapple|pear\t=\npear\t3\t<\ndog\tdog\t=\n")
    done = command(judged.run, judged.composed, "--classes", classes, "--out", tmp_path / "r.json", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["classes"] == [
        {"name": "apple", "classes": ["apple", "pear"], "relation": "="},
        {"name": "dog", "classes": ["dog"], "relation": "="},
        {"name": "pear", "classes": ["pear"], "relation": "<"},
    ]
    for one in found["pictures"]:
        wanted = {"apple": {"apple", "pear"}}.get(one["of"], {one["of"]})
        assert one["right"] == [name in wanted for name in one["guesses"]]
    hits = [one["right"][0] for one in found["pictures"]]
    assert found["all"]["top1"] == sum(hits) / 28
    assert 0 < sum(hits) < 28
    printed = command(judged.run, judged.composed, "--classes", classes, "--out", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert re.search(rf"\| out of context, 28 pictures +\| {sum(hits) / 28:.3f} \|", printed.stdout)
    for line in ("apple = apple, pear", "pear < pear", "pear/one.png", "b6.png", "in context (validation"):
        assert f"| {line}" in printed.stdout


def test_row_55_a_run_that_was_not_evaluated_has_no_accuracy_in_context(
    judged: Judged, tmp_path: Path
) -> None:
    shutil.copytree(judged.run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/evaluations")
    done = command(tmp_path / "run", judged.composed, "--upstream", "IG-1B")
    assert "in context (not evaluated)" in done.stdout
    found = result.read(next((tmp_path / "run/robustness").glob("*.json")))
    assert (found.in_context, found.upstream) == (None, "IG-1B")


def test_row_55_with_the_softmax_loss_probabilities_are_of_all_classes(
    judged: Judged, tmp_path: Path
) -> None:
    shutil.copytree(judged.run, tmp_path / "run")
    settings = json.loads((tmp_path / "run/config.json").read_text())
    settings["loss"]["name"] = "softmax"
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    _, found = evaluate(tmp_path / "run", judged.composed, Options(workers=1))
    results, _ = evaluations.read(evaluations.find(judged.run)[2])
    for row, one in enumerate(found.pictures):
        powers = dict(zip(results.classes[row].tolist(), np.exp(results.scores[row]).tolist(), strict=True))
        assert len(powers) == 5  # all classes
        expected = [powers[c] / sum(powers.values()) for c in results.guesses[row].tolist()]
        assert one.probabilities == pytest.approx(expected, rel=1e-4)


def test_row_55_only_what_was_composed_is_judged(judged: Judged, tmp_path: Path) -> None:
    shutil.copytree(judged.composed, tmp_path / "composed")
    victim = tmp_path / "composed/pictures/pear/one/b2.png"
    background((40, 40), 77).save(victim)
    with pytest.raises(FileError, match=r"pear/one/b2\.png: has changed since it was composed"):
        evaluate(judged.run, tmp_path / "composed", Options(out=tmp_path / "r.json", workers=1))
    assert [each.name for each in tmp_path.iterdir()] == ["composed"]
    victim.write_bytes(b"")
    with pytest.raises(FileError, match=r"pear/one/b2\.png: cannot be read; 1 such pictures"):
        evaluate(judged.run, tmp_path / "composed", Options(out=tmp_path / "r.json", workers=1))
    assert not (tmp_path / "r.json").exists()


def test_row_55_a_users_file_is_left_alone(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match=r"r\.json: is there already, and not what this command writes"):
        evaluate(judged.run, judged.composed, Options(out=tmp_path / "r.json", workers=1))
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]


def test_row_55_another_vocabulary_than_was_trained_on_is_refused(judged: Judged, tmp_path: Path) -> None:
    shutil.copytree(judged.run, tmp_path / "run")
    settings = json.loads((tmp_path / "run/config.json").read_text())
    settings["data"]["vocabulary"] = str(tmp_path / "other.json")
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    vocabulary.save(LABELS, tmp_path / "other.json")  # as many classes
    with pytest.raises(EvaluateError, match=r"data\.vocabulary: not the classes that"):
        evaluate(tmp_path / "run", judged.composed, Options(workers=1))
    for record in (tmp_path / "run/checkpoints").glob("*.json"):
        tiny.rewrite(record, lambda content: content["metadata"].pop("names"))
    more = LABELS._replace(
        classes=(*LABELS.classes, "more"), parents=(*LABELS.parents, ()), senses=(*LABELS.senses, ()),
        counts=(*LABELS.counts, 1),
    )  # fmt: skip
    vocabulary.save(more, tmp_path / "other.json", force=True)
    with pytest.raises(EvaluateError, match=r"data\.vocabulary: not the classes that"):
        evaluate(tmp_path / "run", judged.composed, Options(workers=1))


def mapped(text: str, objects: tuple[str, ...], tmp_path: Path) -> dict[str, mapping.Mapped]:
    (tmp_path / "classes.csv").write_text(text)
    return mapping.read(tmp_path / "classes.csv", objects, LABELS)


def test_row_55_classes_are_found_by_name_tag_wnid_or_number_and_count_with_those_below(
    tmp_path: Path,
) -> None:
    found = mapped(
        "relation,foreground,classes\n=,zebra,n02391049\n<,couch,sofa\n,car,4|Stretch Limo\n=,beast,animal\n",
        ("couch", "zebra", "car", "beast"),
        tmp_path,
    )
    assert {name: (one.names, one.relation, set(one.right)) for name, one in found.items()} == {
        "couch": (("sofa",), "<", {2, 3}),
        "zebra": (("zebra",), "=", {1}),
        "car": (("limousine", "limousine"), "=", {4}),
        "beast": (("animal",), "=", {0, 1}),
    }
    assert mapping.read(None, ["Studio Couch"], LABELS)["Studio Couch"].right == {3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "foreground,classes\nzebra,zebre|horse\nsofa,5\n",
            r"csv: no classes of the model: 'zebre', 'horse', '5'; did you mean 'zebra'",
        ),
        ("foreground,classes\nlimo,4\n", r"csv: says nothing about 'zebra', 'sofa', of which there are"),
        ("foreground,classes\nzebra,1\nzebra,2\n", r"csv:3: 'zebra' stands there already"),
        ("foreground,classes\nzebra,1||2\n", r"csv:2: a class between \| is empty"),
        ("foreground,classes,relation\nzebra,1,>\n", r"csv:2: relation must be = or <, found '>'"),
        ("foreground\nzebra\n", r"csv:1: the first row must name the columns classes"),
    ],
)
def test_row_55_bad_mappings_are_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=said):
        mapped(text, ("zebra", "sofa"), tmp_path)


def test_row_55_without_a_file_all_unknown_classes_are_named() -> None:
    with pytest.raises(FileError, match=r"no classes of the model: 'vase', 'lemon'; say with --classes"):
        mapping.read(None, ["vase", "zebra", "lemon", "vase"], LABELS)


def test_row_55_ancestors_are_right_with_the_classes_below_them_but_never_win(
    judged: Judged, tmp_path: Path
) -> None:
    (tmp_path / "classes.csv").write_text("foreground,classes\napple,fruit\npear,thing\ndog,dog\n")
    words = ["--classes", tmp_path / "classes.csv", "--out", tmp_path / "r.json", "--json"]
    done = command(judged.run, judged.composed, *words)
    assert done.exit_code == 0, done.output
    right = {"apple": {"apple", "pear"}, "pear": {"apple", "pear", "dog"}, "dog": {"dog"}}
    for one in json.loads(done.stdout)["pictures"]:
        assert set(one["guesses"]) == {"apple", "pear", "dog"}
        assert one["right"] == [name in right[one["of"]] for name in one["guesses"]]


def test_row_55_a_class_that_cannot_be_predicted_is_told(judged: Judged, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(judged.composed / "pictures/apple", source / "apple")
    ingest(source, tmp_path / "apples", workers=1)
    with pytest.raises(EvaluateError, match=r"'dog': dog is never predicted: no tag of .*apples selects it"):
        evaluate(judged.run, judged.composed, Options(data=tmp_path / "apples", workers=1))


def test_row_55_data_that_has_moved_is_asked_for(judged: Judged, tmp_path: Path) -> None:
    shutil.copytree(judged.run, tmp_path / "run")
    summary = tmp_path / "run/evaluations/validation-00000006/metrics.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"data": str(tmp_path / "gone")}))
    done = command(tmp_path / "run", judged.composed)
    assert done.exit_code == 1
    assert f"{tmp_path / 'gone'}" in done.stderr
    assert "--data says where it is" in done.stderr
    moved = command(tmp_path / "run", judged.composed, "--data", judged.run.parent / "packed", "--json")
    _, found = evaluate(judged.run, judged.composed, Options(workers=1))
    assert json.loads(moved.stdout)["pictures"] == [one.model_dump(mode="json") for one in found.pictures]


def test_a_damaged_result_is_told(judged: Judged, tmp_path: Path) -> None:
    file, _ = evaluate(judged.run, judged.composed, Options(out=tmp_path / "r.json", workers=1))
    whole = file.read_text()
    for old, new, said in (
        ('"writer"', '"reader"', "not what `hpcscale robustness evaluate` writes"),
        ('"step": 6', '"step": "six"', "step: "),
        ('"top1": ', '"top1": 7', r"in_context\.top1: "),
        ("]}\n]}\n", "]}\n]", "the file: Invalid JSON"),
        ('"probabilities": [', '"probabilities": [0.5, ', "guesses, probabilities and right differ"),
    ):
        assert old in whole
        file.write_text(whole.replace(old, new, 1))
        with pytest.raises(FileError, match=said):
            result.read(file)
