"""`hpcscale labels` as scripts use it: results on stdout, messages on stderr, exit codes 0, 1 and 2."""

import json
import subprocess
import sys

import pytest
import small_wordnet
from click.testing import CliRunner
from PIL import Image

from benchmarks import jft
from hpcscale.cli import main
from hpcscale.ingest.packing import ingest
from hpcscale.labels import wordnet
from hpcscale.labels.vocabulary import load

TREE = "food\nfruit\tfood\napple\tfruit\npear\tfruit\n"
MANIFEST = [
    {"image": "a.jpg", "tags": ["Apple", "yum"]},
    {"image": "b.jpg", "tags": ["pear", "apple"]},
    {"image": "c.jpg", "tags": []},
]


def run(*arguments):
    return CliRunner().invoke(main, ["labels", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tree.tsv").write_text(TREE)
    write(tmp_path / "manifest.jsonl", MANIFEST)
    return tmp_path


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def build(folder, *more, out="v.json"):
    return run(
        "build",
        folder / out,
        "--manifest",
        folder / "manifest.jsonl",
        "--parents",
        folder / "tree.tsv",
        *more,
    )


def test_build_from_a_manifest_and_a_users_hierarchy(folder):
    result = build(folder)
    assert result.exit_code == 0, result.output
    assert "4 classes" in result.stdout
    assert "1 of 4 tags select no class: 'yum'" in result.stderr
    assert "1 of 3 samples have no class" in result.stderr
    vocabulary = load(folder / "v.json")
    assert vocabulary.classes == ("food", "fruit", "apple", "pear")
    assert vocabulary.counts == (2, 2, 2, 1)
    again = build(folder)
    assert again.exit_code == 0
    assert again.stdout == result.stdout


def test_build_from_a_data_set(folder):
    for name, colour in (("apple", "red"), ("pear", "green"), ("stone", "grey")):
        (folder / "source" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(folder / "source" / name / "1.jpg")
    ingest(folder / "source", folder / "data")
    result = run("build", folder / "v.json", "--data", folder / "data", "--parents", folder / "tree.tsv")
    assert result.exit_code == 0, result.output
    assert load(folder / "v.json").counts == (2, 2, 1, 1)
    assert "'stone'" in result.stderr
    missing = run("build", folder / "w.json", "--data", folder / "source")
    assert missing.exit_code == 1
    assert str(folder / "source") in missing.stderr


def test_a_different_file_is_replaced_only_with_force(folder):
    assert build(folder).exit_code == 0
    before = (folder / "v.json").read_bytes()
    result = build(folder, "--no-ancestors")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert (folder / "v.json").read_bytes() == before
    assert build(folder, "--no-ancestors", "--force").exit_code == 0
    assert load(folder / "v.json").counts == (0, 0, 2, 1)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("a\tb\nb\ta\n", "'a' -> 'b' -> 'a'"),
        ("a\tb\n", "unknown parent(s)"),
        ("a\na\n", "line 2 gives 'a' again"),
    ],
)
def test_a_bad_hierarchy_is_a_problem_of_the_data(folder, tree, message):
    (folder / "tree.tsv").write_text(tree)
    result = build(folder)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (folder / "v.json").exists()


def test_a_bad_manifest_is_a_problem_of_the_data(folder):
    (folder / "manifest.jsonl").write_text('{"image": "a.jpg", "tags": "apple"}\n')
    result = build(folder)
    assert result.exit_code == 1
    assert "manifest.jsonl:1: 'tags' must be a list" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --data or --manifest"),
        (["--manifest", "{}/manifest.jsonl", "--data", "{}"], "either --data or --manifest"),
        (
            ["--manifest", "{}/manifest.jsonl", "--parents", "{}/tree.tsv", "--top", "3"],
            "--top is about WordNet",
        ),
        (
            ["--manifest", "{}/manifest.jsonl", "--parents", "{}/tree.tsv", "--wordnet", "{}"],
            "--wordnet is about",
        ),
        (["--manifest", "{}/manifest.jsonl", "--wordnet", "{}"], "install Debian's wordnet-base"),
        (["--manifest", "{}/nothing.jsonl"], "does not exist"),
        (["--manifest", "{}/manifest.jsonl", "--use", "hashtags"], "'wnids', 'tags', 'both'"),
    ],
)
def test_wrong_usage(folder, arguments, message):
    result = run("build", folder / "v.json", *(each.format(folder) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.skipif(not (wordnet.FOLDER / "data.noun").exists(), reason="wordnet-base is not installed")
def test_wordnet(folder):
    write(folder / "manifest.jsonl", [{"image": "a.jpg", "tags": ["tench"], "wnid": "n01440764"}])
    (folder / "wnids.txt").write_text("n01440764\nn01443537\n")
    arguments = [
        "build",
        folder / "v.json",
        "--manifest",
        folder / "manifest.jsonl",
        "--select",
        folder / "wnids.txt",
    ]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "use: wnids" in result.stdout
    shown = run("show", folder / "v.json", "n01440764")
    assert shown.stdout.startswith("tench")
    assert "ancestor  animal" in shown.stdout
    words = run(*arguments, "--use", "tags", "--force")
    assert "use: tags" in words.stdout
    assert load(folder / "v.json").tags["tincatinca"] == load(folder / "v.json").tags["tench"]


def test_engineer(folder):
    """Targets: the brown bear and the wader, which has no pictures."""
    records = [["#BrownBear"], ["Paddington"], ["bear"], ["animal"], ["tower crane"]]
    (folder / "source").mkdir()
    for number in range(len(records)):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / f"source/{number}.jpg")
    write(
        folder / "source/manifest.jsonl",
        [{"image": f"{number}.jpg", "tags": tags} for number, tags in enumerate(records)],
    )
    ingest(folder / "source", folder / "data")
    (folder / "nouns").mkdir()
    small_wordnet.write(folder / "nouns")
    (folder / "target.txt").write_text("brown bear\nn00000014 wader\n")

    def engineer(*more, out="v.json"):
        fixed = ("--data", folder / "data", "--target", folder / "target.txt", "--wordnet", folder / "nouns")
        return run("engineer", *fixed, "--out", folder / out, *more)

    result = engineer("--budget", 10, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "file": str(folder / "v.json"), "table": str(folder / "v.tsv"),
        "targets": 2, "classes": 3, "exact": 1, "below": 1, "above": 1, "pictures": 3, "samples": 5,
        "left_out": {"too general": 1, "no pictures": 1}, "exact_left_out": 0, "unserved": ["wader"],
    }  # fmt: skip
    assert "no class serves 1 of the 2 targets: wader" in result.stderr
    vocabulary = load(folder / "v.json")
    selected = [vocabulary.classes[vocabulary.tags[tag]] for tag in ("ursusarctos", "paddington", "bear")]
    assert selected == ["brown_bear", "Paddington", "bear"]
    assert vocabulary.labelled == 3
    assert len((folder / "v.tsv").read_text().splitlines()) == 1 + 3 + 2

    few = engineer("--pictures", 1)
    assert few.exit_code == 2
    assert "v.tsv exists and differs" in few.stderr
    few = engineer("--pictures", 1, "--force")
    assert few.exit_code == 0, few.output
    assert "1 classes for 2 targets: 1 exact, 0 below, 0 above" in few.stdout
    assert "1 of 5 pictures" in few.stdout
    (folder / "target.txt").write_text("bear\n")
    ambiguous = engineer("--budget", 1)
    assert ambiguous.exit_code == 2
    assert "line 1, 'bear': n00000011 (a kind of animal), n00000024 (a kind of device)" in ambiguous.stderr
    (folder / "target.txt").write_text("brown bear\nanimal\n")
    many = engineer("--pictures", 9, "--up", 0, "--table", folder / "t.tsv", out="w.json")
    assert "there are no 9 pictures for this target, only 4" in many.stderr
    assert (folder / "t.tsv").exists()
    assert "exact classes that the limit leaves out: 1" in engineer("--budget", 1, out="x.json").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --budget or --pictures"),
        (["--budget", 1, "--pictures", 1], "either --budget or --pictures"),
        (["--budget", 1, "--table", "{}/v.json"], "is the vocabulary too"),
        (["--budget", 1, "--table", "{}/manifest.jsonl"], "manifest.jsonl: is an input of this command"),
        (["--budget", 1, "--table", "{}/tree.tsv"], "not what this command writes"),
        (["--budget", 0], "0 is not in the range"),
    ],
)
def test_wrong_usage_of_engineer(folder, arguments, message):
    (folder / "data").mkdir()
    fixed = ("--data", folder / "data", "--target", folder / "manifest.jsonl", "--out", folder / "v.json")
    result = run("engineer", *fixed, "--force", *(str(each).format(folder) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_show(folder):
    build(folder)
    result = run("show", folder / "v.json", "FRUIT", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "id": 1,
        "name": "fruit",
        "senses": [],
        "tags": ["fruit"],
        "count": 2,
        "samples": 3,
        "parents": ["food"],
        "ancestors": [{"name": "food", "count": 2, "parents": []}],
        "children": [{"name": "apple", "count": 2}, {"name": "pear", "count": 1}],
    }
    text = run("show", folder / "v.json", "apple").stdout
    assert "ancestor  fruit < food  (2)" in text
    summary = json.loads(run("show", folder / "v.json", "--json").stdout)
    assert (summary["classes"], summary["depth"], summary["widest"]) == (4, 2, "fruit")
    assert "4 classes" in run("show", folder / "v.json").stdout


def test_show_an_unknown_class_asks_what_was_meant(folder):
    build(folder)
    result = run("show", folder / "v.json", "aple")
    assert result.exit_code == 2
    assert "did you mean 'apple'?" in result.stderr
    assert "did you mean" not in run("show", folder / "v.json", "zebra").stderr


def test_show_a_damaged_file(folder):
    (folder / "v.json").write_text("{}")
    result = run("show", folder / "v.json")
    assert result.exit_code == 1
    assert "v.json" in result.stderr


def test_a_hierarchy_of_jfts_size(folder):
    lines = [f"c{c}\t{f'c{above[0]}' if above else ''}" for c, above in enumerate(jft.parents())]
    (folder / "tree.tsv").write_text("\n".join(reversed(lines)))
    write(folder / "manifest.jsonl", [{"image": "a.jpg", "tags": ["c21", "C18290"]}])
    assert build(folder).exit_code == 0
    summary = json.loads(run("show", folder / "v.json", "--json").stdout)
    assert (summary["classes"], summary["depth"], summary["fan_out"]) == (18291, 12, 2876)
    assert summary["labels_per_sample"] == 13 + 2  # c21 ends the chain below c0; c18290 hangs on c1


def test_help_imports_nothing_heavy():
    code = (
        "import sys, hpcscale.cli.labels; "
        "print(sorted({'numpy', 'torch', 'h5py', 'pydantic'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
