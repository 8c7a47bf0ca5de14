"""Recipes: what is no number, too large, or would be dropped is an error that names the key."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpcscale import config
from hpcscale.cli import main
from hpcscale.cluster import site
from hpcscale.config import Config, ConfigError, load
from hpcscale.sections import may_change

RECIPE = """
[data]
train = "data"
vocabulary = "vocabulary.json"
[schedule]
lr = 0.1
[train]
steps = 10
batch = 4
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def numbers() -> dict[str, type]:
    """Every key that holds a number: section.key -> its type."""
    found = {}
    for section, field in Config.model_fields.items():
        model: Any = field.annotation
        for key, inner in model.model_fields.items():
            kinds = {inner.annotation, *getattr(inner.annotation, "__args__", ())}
            for kind in kinds & {int, float}:
                found[f"{section}.{key}"] = kind
    return found


def test_all_numbers_are_tried() -> None:
    assert len(numbers()) == 55
    assert numbers()["watchdog.floor"] is float
    assert numbers()["input.resize"] is int


@pytest.mark.parametrize("key", numbers())
def test_what_is_no_number_is_refused(recipe: Path, key: str) -> None:
    """inf trained once, and made a config.json that could not be read; true was taken as 1."""
    for text in ("true", "false", "inf", "-inf", "nan", '"1"', "[1]", "{a = 1}", "1979-05-27", "1" * 5000):
        with pytest.raises(ConfigError, match=rf"{key}"):
            load(recipe, [f"{key}={text}"])


@pytest.mark.parametrize("key", [key for key, kind in numbers().items() if kind is int])
def test_integers_have_limits_and_no_fractions(recipe: Path, key: str) -> None:
    for text in ("1e12", "1.5", f"{10**20}", f"-{10**20}"):
        with pytest.raises(ConfigError, match=rf"{key}: Input should be"):
            load(recipe, [f"{key}={text}"])


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        (f"train.batch={10**12}", "less than or equal to 1000000"),
        ("train.steps=100000000", "less than or equal to 99999999"),
        (f"train.seed={2**63}", "less than 9223372036854775808"),
        ("input.crop=60000", "less than or equal to 8192"),
        ("input.resize=60000", "less than or equal to 8192"),
        ("input.threads=1000000", "less than or equal to 1024"),
        ("watchdog.floor=1e300", "less than or equal to 10000000"),
        ("schedule.at=[1, 100000000]", "less than or equal to 99999999"),
    ],
)
def test_limits_are_named(recipe: Path, setting: str, limit: str) -> None:
    with pytest.raises(ConfigError, match=limit):
        load(recipe, [setting])


def test_what_is_allowed_stays_allowed(recipe: Path) -> None:
    words = ["schedule.lr=1", "train.seed=-3", "schedule.at=[2, 5]", "watchdog.floor=0", "data.drop=a b.txt",
             "train.tensorboard=true", "data.validation='x#y'"]  # fmt: skip
    found = load(recipe, words)
    assert (found.schedule.lr, found.train.seed, found.schedule.at) == (1.0, -3, (2, 5))
    assert (found.data.drop, found.data.validation) == (Path("a b.txt"), Path("x#y"))
    file = recipe.with_name("config.json")
    file.write_text(config.dump(found))
    assert config.read(file) == found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=5\ntrain.batch=8", "a line break in the value"),
        ("train.steps=5\rtrain.batch=8", "a line break in the value"),
        ("train.steps=5 # train.batch=8", "train.steps: Input should be a valid integer; found '5 # train"),
        ("train.steps=5, 6", "train.steps: Input should be a valid integer; found '5, 6'"),
        ("train.steps=5,", "train.steps: Input should be a valid integer; found '5,'"),
        ("train.tensorboard=1", "train.tensorboard: Input should be a valid boolean"),
        ("data.train=5", "data.train: a path must be a text; found 5"),
        ("data.train=a\0b", "data.train: Value error, a path has no NUL"),
        ("data.train=a\ud800b", "data.train: Value error, a path has no halves of characters"),
        ("train.steps=" + "[" * 100_000, "nested too deep"),
        ("train" + ".a" * 100_000 + "=1", "train.a: unknown key; known are steps"),
        ("=5", "expected section.key=value"),
    ],
)
def test_overrides_say_what_is_wrong(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(recipe, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "nested too deep"),
        ("a = " + "1" * 5000, "digits"),
        ("a = \xff", "not UTF-8"),
        ("a", "not TOML"),
    ],
    ids=["deep", "digits", "bytes", "syntax"],
)
def test_a_recipe_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    for name in ("recipe.toml", "site.toml"):
        file = tmp_path / name
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=rf"{name}.*{message}"):
            (load if name == "recipe.toml" else site.load)(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"train": ' + "1" * 5000 + "}", '{"train": NaN}', "[]", "{}", "", "\xff", "null"],
    ids=["deep", "digits", "nan", "list", "empty", "nothing", "bytes", "null"],
)
def test_a_config_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        config.read(file)
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path)])
    assert (result.exit_code, "config.json" in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    "line",
    ["gpus_per_node = true", f"gpus_per_node = {10**9}", "ranks_per_node = 1.0", f"retries = {10**20}",
     "stop_seconds = inf", f"cpus_per_rank = {10**9}", "[train]\nranks_per_node = true"],
)  # fmt: skip
def test_numbers_of_a_site(tmp_path: Path, line: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'image = "a.sif"\n{line}\n')
    key = line.rpartition("\n")[2].split(" ")[0]
    with pytest.raises(ConfigError, match=rf"{key}: Input should be"):
        site.load(file)


def test_gradients_of_a_divided_classifier_cannot_be_clipped(recipe: Path) -> None:
    assert load(recipe, ["optimizer.clip=10"]).optimizer.clip == 10
    with pytest.raises(ConfigError, match=r"optimizer\.clip: no rank knows the norm of all gradients"):
        load(recipe, ["optimizer.clip=10", "model.slices=ranks"])


def test_nothing_is_made_where_the_configuration_is_wrong(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for setting in ("watchdog.floor=inf", f"train.batch={10**12}", "train.steps=2\ntrain.batch=8"):
        words = ["train", run, "--config", recipe, "--set", setting]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 2, result.output
    assert not run.exists()
    assert json.dumps(sorted(file.name for file in tmp_path.iterdir())) == '["recipe.toml"]'


def test_what_may_change_is_marked_where_it_is_defined() -> None:
    """How a run reports, where things lie, how fast it is and on which ranks, what it does about trouble;
    nothing that it computes."""
    sections = {
        "data": {"train", "vocabulary", "validation", "drop", "index", "held_out_names"},
        "selection": {"classes", "names"},
        "validation": {"classes", "names"},
        "input": {"threads", "prefetch"},
        "model": {"slices"},
        "ranks": {"backend"},
    }
    train = {"threads", "log_every", "checkpoint_every", "keep", "keep_at", "evaluate_every", "tensorboard"}
    trouble = {f"divergence.{key}" for key in Config.model_fields["divergence"].annotation.model_fields}
    trouble |= {f"watchdog.{key}" for key in Config.model_fields["watchdog"].annotation.model_fields}
    named = {f"{section}.{key}" for section, keys in sections.items() for key in keys}
    assert set(may_change(Config)) == named | {f"train.{key}" for key in train} | trouble


def test_pictures_are_cut_for_evaluation_as_in_training_but_where_it_is_said(recipe: Path) -> None:
    assert config.seen(load(recipe)) == load(recipe).input
    seen = config.seen(load(recipe, ["evaluate.crop=20", "input.threads=3"]))
    assert (seen.crop, seen.resize, seen.threads) == (20, None, 3)
    assert config.seen(load(recipe, ["evaluate.resize=30", "input.resize=20"])).resize == 30


@pytest.mark.parametrize(("ranks", "parts", "found"), [(1, 1, 4), (2, 1, 2), (2, 2, 2), (1, 4, 4)])
def test_a_batch_is_shared_alike(recipe: Path, ranks: int, parts: int, found: int) -> None:
    assert config.samples_of_rank(load(recipe, [f"train.accumulate={parts}"]), ranks) == found


@pytest.mark.parametrize(
    ("ranks", "parts", "message"),
    [
        (3, 1, r"train\.batch is 4, which 3 ranks cannot share"),
        (2, 4, r"train\.accumulate is 4, but a rank has 2 samples of a step"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_told(recipe: Path, ranks: int, parts: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.samples_of_rank(load(recipe, [f"train.accumulate={parts}"]), ranks)
