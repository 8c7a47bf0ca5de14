"""What `data list` says of a catalogue: what is there, how much, in words, and whether the name fits."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpcscale import catalogue
from hpcscale.catalogue import Selection
from hpcscale.cli import main
from hpcscale.data.manifest import Entry, Plan, manifest_lines, shard_name
from hpcscale.labels.vocabulary import Vocabulary, save
from hpcscale.samples.listing import Listed, listed, words


def pack(folder: Path, *samples: int, shards: int | None = None) -> None:
    """The plan and the manifest of a packed set; no more is read."""
    folder.mkdir(parents=True)
    records = (shards or len(samples)) * 10
    plan = Plan(source="folder", records=records, source_digest="", tags=0, tags_digest="", resize=None,
                quality=90, shard_samples=10, encoder="")  # fmt: skip
    (folder / "plan.json").write_text(plan.json_text())
    entries = [
        Entry(file=shard_name(k), samples=n, tags=0, untagged=0, quarantined=0, bytes=1, sha256="")
        for k, n in enumerate(samples)
    ]
    (folder / "manifest.jsonl").write_bytes(manifest_lines(entries))


def build(file: Path, classes: int) -> None:
    names = tuple(f"c{c}" for c in range(classes))
    empty = ((),) * classes
    tags = {name: c for c, name in enumerate(names)}
    save(Vocabulary(names, empty, empty, tags, (0,) * classes, 0, 0, {}), file)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(catalogue.VARIABLE, raising=False)
    pack(Path("ig"), 2_000_000_000, 1_512_345_678)
    build(Path("1284.json"), 1284)
    return tmp_path


def entry(name: str, rest: str) -> Listed:
    Path("catalogue.toml").write_text(f'["{name}"]\n{rest}')
    (found,) = listed(catalogue.read(Path("catalogue.toml")))
    assert found.name == name
    return found


def test_row_05_an_entry_whose_name_fits() -> None:
    rest = 'data = "ig"\nvocabulary = "1284.json"\nselection = {size = 940_300_000, seed = 1}'
    assert entry("train-IG-940M-1.5k", rest) == Listed(
        name="train-IG-940M-1.5k", data="ig", vocabulary="1284.json", there=True, samples=3_512_345_678,
        selection="940,300,000 samples by seed 1", selected=940_300_000, classes=1284, fits=True, warnings=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rest", "selected", "fits"),
    [
        ("IG-3.5B-17k", "", 3_512_345_678, True),
        ("IG-4B-17k", "", 3_512_345_678, True),
        ("IG-3.6B-17k", "", 3_512_345_678, False),
        ("IG-351M-17k", "selection.share = 0.1", 351_234_568, True),
        ("IG-352M-17k", "selection.share = 0.1", 351_234_568, False),
        ("IG-3.2B-17k", "selection = {share = 0.1, complement = true}", 3_161_111_110, True),
        ("IG-1B-17k", "selection = {size = 1_000_000_000, classes = 'list'}", 10**9, True),
        ("IG-1B-17k", "selection.names = 'list'", None, None),
        ("IG-1B-17k", "selection = {size = 7, names = 'list', complement = true}", None, None),
        ("IG-17k", "", 3_512_345_678, None),
    ],
)
def test_row_05_how_many_a_selection_takes(name: str, rest: str, selected: int | None, fits: bool) -> None:
    found = entry(name, f'data = "ig"\n{rest}')
    assert (found.selected, found.fits) == (selected, fits)
    assert bool(found.warnings) is (fits is False)


def test_row_05_the_classes_of_a_name() -> None:
    rest = 'data = "ig"\nvocabulary = "1284.json"'
    assert entry("IG-1.3k", rest).fits is True
    assert entry("IG-1k", rest).fits is True
    assert entry("web-1k", rest).fits is True
    assert entry("web-1.5k", rest).fits is False
    assert entry("IG-17k", rest).warnings == ("the name says 17,000 classes, it has 1,284",)
    Path("list").write_text("c0\nc7\nc7\n")
    found = entry("web-2", f'{rest}\nselection.classes = "list"')
    assert (found.classes, found.fits, found.selected) == (2, True, None)


@pytest.mark.parametrize(
    ("rest", "there", "warning"),
    [
        ('data = "gone"', False, "gone: is not there"),
        ('data = "/"', False, "/: not a data-set folder: plan.json"),
        ('data = "half"', True, "half: the ingest has not ended: 1 of 3 shards"),
        ('data = "ig"\nselection.size = 4_000_000_000', True, "selection.size is 4,000,000,000, but the set"),
        ('data = "ig"\nvocabulary = "gone.json"', True, "gone.json: cannot be read"),
        ('data = "ig"\nvocabulary = "1284.json"\nselection.classes = "list"', True, "'zebra' in line 1"),
    ],
)
def test_what_is_wrong_is_told_and_the_rest_is_listed(rest: str, there: bool, warning: str) -> None:
    pack(Path("half"), 10, shards=3)
    Path("list").write_text("zebra\n")
    found = entry("web-17k", rest)
    assert found.there is there
    assert warning in found.warnings[0]


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Selection(), "all"),
        (Selection(seed=3), "all"),
        (Selection(share=0.015), "1.5 % of the samples"),
        (Selection(size=5, complement=True), "all but 5 samples"),
        (Selection(size=5, names=Path("n"), seed=2), "5 samples by seed 2 of the names in n"),
        (Selection(classes=Path("c")), "all, with a class of c"),
    ],
)
def test_a_selection_in_words(selection: Selection, text: str) -> None:
    assert words(selection) == text


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["data", "list", *arguments])


def test_the_command() -> None:
    told = run()
    assert told.exit_code == 2
    assert "there is no catalogue: $HPCSCALE_CATALOGUE is not set" in " ".join(told.stderr.split())
    Path("catalogue.toml").write_text('[IG-4B-17k]\ndata = "ig"\n[web-1k]\ndata = "a\\u001bb"\n')
    told = run()
    assert told.exit_code == 0
    assert told.stdout == (
        "name       samples        selected       classes  fits  selection  data\n"
        "IG-4B-17k  3,512,345,678  3,512,345,678  -        yes   all        ig\n"
        "web-1k     -              -              -        -     all        a\\u001bb\n"
    )
    assert told.stderr == "web-1k: a\\u001bb: is not there\n"
    found = json.loads(run("--json").stdout)
    assert found["catalogue"] == "catalogue.toml"
    assert [set(each) for each in found["entries"]] == [set(Listed._fields)] * 2
    assert found["entries"][0]["samples"] == 3_512_345_678
    Path("catalogue.toml").write_text("[x]")
    assert run().exit_code == 2
