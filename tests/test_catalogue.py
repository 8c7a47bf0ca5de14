"""The catalogue: what a name in a recipe becomes, what wins, and what is wrong with a name or a file."""

from pathlib import Path
from typing import Any

import pytest

from hpcscale import catalogue, config
from hpcscale.config import ConfigError

CATALOGUE = """
["train-IG-940M-1.5k"]
data = "packed/ig"
vocabulary = "1.5k.json"
index = "940M.index"
selection = {size = 940_000_000, seed = 3, classes = "lists/1.5k.txt"}

["train-IG-3.5B-17k"]
data = "packed/ig"
vocabulary = "17k.json"

["train-IN-1M-1k"]
data = "/sets/in-train"
vocabulary = "in.json"
["val-IN-50k-1k"]
data = "/sets/in-val"
["val-IN-25k-1k"]
data = "/sets/in-val"
selection.share = 0.5

["web-10k"]
data = "web"

[train-CUB-6k-200]
data = "cub/train"
[val-CUB-6k-200]
data = "cub/val"
[test-COCO-20k-80]
data = "coco"
[test-COCO-10k-80]
data = "coco"
"""
RECIPE = """
[schedule]
lr = 0.1
[train]
steps = 10
batch = 4
[data]
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a catalogue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(catalogue.VARIABLE, raising=False)
    Path(catalogue.FILE).write_text(CATALOGUE)
    return tmp_path


def load(data: str, *overrides: str) -> config.Config:
    Path("recipe.toml").write_text(RECIPE + data)
    return config.load(Path("recipe.toml"), overrides)


def test_row_05_a_recipe_names_its_data() -> None:
    found = load('train = "train-IG-940M-1.5k"\nvalidation = "val-IN-50k-1k"')
    assert found.data.train == Path("packed/ig")
    assert found.data.vocabulary == Path("1.5k.json")
    assert found.data.index == Path("940M.index")
    assert found.data.validation == Path("/sets/in-val")
    assert found.selection == config.Selection(size=940_000_000, seed=3, classes=Path("lists/1.5k.txt"))
    Path("config.json").write_text(config.dump(found))
    Path(catalogue.FILE).unlink()
    assert config.read(Path("config.json")) == found


def test_a_name_of_validation_data_brings_its_selection() -> None:
    found = load('train = "IG-940M-1.5k"\nvalidation = "val-IN-25k-1k"')
    assert found.data.validation == Path("/sets/in-val")
    assert found.validation == config.Selection(share=0.5)
    own = load('train = "IG-940M-1.5k"\nvalidation = "val-IN-25k-1k"', "validation.size=7")
    assert own.validation == config.Selection(size=7)


@pytest.mark.parametrize(
    ("key", "text", "folder"),
    [("train", "IG-940M-1k", "packed/ig"), ("train", "IN-1k", "/sets/in-train"),
     ("train", "ImageNet-1k", "/sets/in-train"), ("validation", "IN-50k-1k", "/sets/in-val"),
     ("train", "CUB-200", "cub/train"), ("validation", "CUB-200", "cub/val"), ("train", "web-10k", "web")],
)  # fmt: skip
def test_row_05_what_a_name_leaves_out_is_found(key: str, text: str, folder: str) -> None:
    other = {"validation": 'train = "there"', "train": 'validation = "there"'}[key]
    found = load(f'vocabulary = "v.json"\n{key} = "{text}"\n{other}')
    assert getattr(found.data, key) == Path(folder)


def test_paths_are_relative_to_the_catalogue(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "shared").mkdir()
    Path(catalogue.FILE).rename("shared/all.toml")
    monkeypatch.setenv(catalogue.VARIABLE, str(place / "shared/all.toml"))
    found = load('train = "train-IG-940M-1.5k"')
    assert found.data.train == place / "shared/packed/ig"
    assert found.data.vocabulary == place / "shared/1.5k.json"
    assert found.data.index == place / "shared/940M.index"
    assert found.selection.classes == place / "shared/lists/1.5k.txt"
    assert load('train = "IN-1k"').data.train == Path("/sets/in-train")
    monkeypatch.setenv(catalogue.VARIABLE, "shared/all.toml")
    assert load('train = "train-IG-940M-1.5k"').data.train == Path("shared/packed/ig")
    monkeypatch.setenv(catalogue.VARIABLE, "none.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load('train = "train-IG-940M-1.5k"')
    assert load('train = "plain"\nvocabulary = "v.json"').data.train == Path("plain")


def test_what_the_recipe_sets_wins() -> None:
    name = 'train = "train-IG-940M-1.5k"'
    found = load(f'{name}\nvocabulary = "own.json"\nindex = "own.index"')
    assert (found.data.vocabulary, found.data.index) == (Path("own.json"), Path("own.index"))
    assert load(name, "data.vocabulary=other.json").data.vocabulary == Path("other.json")
    assert load('train = "there"\nvocabulary = "v.json"', "data.train=IG-940M-1k").selection.seed == 3

    chosen = load(f"{name}\n[selection]\nseed = 4")
    assert (chosen.selection.seed, chosen.selection.size) == (4, 940_000_000)
    assert chosen.data.index is None, "the index is of the entry's selection"
    chosen = load(name, "selection.share=0.1")
    assert (chosen.selection.seed, chosen.selection.size, chosen.selection.share) == (3, None, 0.1)
    assert load(name, "selection.size=7").selection.size == 7


def test_a_folder_that_is_there_is_no_name(place: Path) -> None:
    (place / "train-IG-940M-1.5k").mkdir()
    found = load('train = "train-IG-940M-1.5k"\nvocabulary = "v.json"')
    assert found.data.train == Path("train-IG-940M-1.5k")
    assert found.selection == config.Selection()
    assert load('train = "./web-10k"\nvocabulary = "v.json"').data.train == Path("web-10k")


def test_without_a_catalogue_only_a_role_makes_a_name() -> None:
    Path(catalogue.FILE).unlink()
    assert load('train = "web-10k"\nvocabulary = "v.json"').data.train == Path("web-10k")
    with pytest.raises(ConfigError, match=r"data\.train: 'train-web-10k' is not there, and no catalogue"):
        load('train = "train-web-10k"\nvocabulary = "v.json"')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('train = "train-IG-950M-1.5k"', r"data\.train: 'train-IG-950M-1.5k' is neither a folder nor in the "
         r"catalogue catalogue\.toml; near it are train-IG-940M-1\.5k.*write \./train-IG-950M-1\.5k"),
        ('train = "IG-17k"\nvalidation = "val-IN-1k"', r"data\.validation: 'val-IN-1k' may be each of "
         r"val-IN-50k-1k, val-IN-25k-1k in catalogue\.toml"),
        ('train = "COCO-80"', r"data\.train: 'COCO-80' may be each of test-COCO-20k-80, test-COCO-10k-80"),
        ('train = "web-10k"', r"recipe\.toml: 1 problem\(s\)\n  data\.vocabulary: missing"),
        ('train = "IG-940M-1k"\n[selection]\nsize = 0', r"selection\.size: Input should be greater"),
        ('train = "IG-17k"\n[selection]\nsize = 1\nshare = 0.5', "'size' and 'share' both say how many"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_used_is_told(data: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["train-IG"]\ndata = "x"', r"catalogue\.toml: 'train-IG': 0 numbers after the source"),
        ('IG-1B = "x"', r"catalogue\.toml: .*must be a section with the key 'data'; found 'x'"),
        ("[IG-1B]", r'catalogue\.toml: \["IG-1B"\]: 1 problem\(s\)\n  data: missing'),
        ('[IG-1B]\ndata = "x"\nlabels = 1', "labels: unknown key; known are data, vocabulary,"),
        ('[IG-1B]\ndata = "x"\nselection.sizes = 1', r"selection\.sizes: unknown key; known are size, share"),
        ('[IG-1B]\ndata = "x"\nselection = {share = 2.0}', r"selection\.share: Input should be less"),
        ('[IG-1B]\ndata = "x"\nselection = {size = 1, share = 0.5}', "'size' and 'share' both say how many"),
        ('[IG-1B]\ndata = "x\\u0000"', "data: .*a path has no NUL"),
        ('[train-IG-940M-1.5k]\ndata = "x"', r"\[train-IG-940M-1\.5k\]: a name with a point stands in"),
        ("[IG-1B", r"catalogue\.toml: not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_catalogue_is_told(text: str, message: str) -> None:
    Path(catalogue.FILE).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load('train = "IG-17k"\nvocabulary = "v.json"')
    assert load('train = "plain"\nvocabulary = "v.json"').data.train == Path("plain"), "it is not needed"


def test_an_empty_catalogue_says_so() -> None:
    Path(catalogue.FILE).write_text("")
    with pytest.raises(ConfigError, match=r"catalogue catalogue\.toml, which is empty"):
        load('train = "IG-17k"\nvocabulary = "v.json"')


@pytest.mark.parametrize("values", [{}, {"data": 1}, {"data": {"train": 1}}, {"data": {"train": "a\0-1k"}}])
def test_what_is_no_recipe_is_left_to_the_check(values: dict[str, Any]) -> None:
    assert catalogue.fill(values) is None


def test_what_was_read_is_told(place: Path) -> None:
    Path("recipe.toml").write_text(RECIPE + 'train = "IG-940M-1k"')
    assert config.load_from(Path("recipe.toml"))[1] == [Path("recipe.toml"), Path(catalogue.FILE)]
    sets = ["data.train=a", "data.vocabulary=b"]
    assert config.load_from(Path("recipe.toml"), sets)[1] == [Path("recipe.toml")]
    assert config.load_from(Path("demo.toml"), sets)[1] == []
