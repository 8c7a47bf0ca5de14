"""The shape of the tree: imports point one way, foreign things have one file, tests mirror, links lead on."""

import ast
import io
import keyword
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "hpcscale"
TESTS = ROOT / "tests"

# A part may import itself and what stands in a later row; one of NARROW only what it names.
ROWS = (
    ("__main__", "demos", "selftest"),
    ("cli",),
    ("bench", "study"),
    ("transfer", "dense", "robustness"),
    ("train", "dedup", "review", "export"),
    ("report", "cluster"),
    ("evaluate",),
    ("inputs", "ingest"),
    ("samples", "annotations"),
    ("models", "data"),
    ("labels",),
    ("ops", "ranks"),
    ("tasks",),
    ("config", "pairs", "origin"),
    ("catalogue",),
    ("choice", "descent", "guards", "view"),
    ("sections", "names"),
    ("files", "progress"),
    ("text",),
    ("_ops", "__init__"),
)
NARROW = {
    "report": {"config", "evaluate", "files", "progress", "text"},
    "cluster": {"catalogue", "config", "files", "progress", "sections", "text"},
}
# Files of a part that others may import, and the only ones.
FILES_OF = {("report", "evaluate"): {"evaluations", "leaks"}}
ONLY = {
    "horovod": "hpcscale/ranks/horovod.py",
    "torch.distributed": "hpcscale/ranks/distributed.py",
    "nvidia": "hpcscale/inputs/decoder.py",
    "h5py": "hpcscale/data/shard.py hpcscale/data/codes.py hpcscale/samples/files.py",
    "faiss": "hpcscale/dedup/cosine.py",
    "onnxruntime": "hpcscale/export.py",
    "hotcoco": "hpcscale/evaluate/coco.py",
    "torchvision": "hpcscale/dense/ops.py",
    "hpcscale._ops": "hpcscale/ops.py",
}

# How words begin that only a task has, and the loop of all tasks has not.
TASK = ("box", "caption", "class", "crop", "hierarch", "image", "label", "logit", "mask", "picture", "pixel",
        "resnet", "softmax", "tag", "target", "vocabular")  # fmt: skip

# Tests that are of no part of the package.
APART = {"architecture", "ci", "conftest", "fuzz", "limits", "live", "toolkit"}


# What is imported by another name than it is installed by.
MODULES = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "nvidia": "nvidia-dali-cuda130",
    "pydantic_core": "pydantic",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def imports(text: str) -> set[str]:
    """Full names of all that a file imports, inside functions too; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def row(part: str) -> int:
    found = [index for index, parts in enumerate(ROWS) if part in parts]
    assert found, f"hpcscale.{part} has no row yet"
    return found[0]


def wrong_way(part: str, text: str) -> set[str]:
    """Parts that a file of `part` imports and must not."""
    names = [name.split(".")[1:] for name in imports(text) if name.startswith("hpcscale.")]
    parts = {name[0] for name in names}
    allowed = NARROW.get(part)
    closed = {
        name[0]
        for name in names
        if name[1:] and (files := FILES_OF.get((part, name[0]))) is not None and name[1] not in files
    }
    return closed | {
        other
        for other in parts - {part, "__version__"}
        if row(other) <= row(part) or (allowed is not None and other not in allowed)
    }


def misplaced(file: str, text: str) -> set[str]:
    """Foreign things that a file imports though they belong to another."""
    found = imports(text)
    return {
        name
        for name, home in ONLY.items()
        if not file.startswith(tuple(home.split()))
        and any(other == name or other.startswith(name + ".") for other in found)
    }


def task_words(text: str) -> set[str]:
    """Words of a task in code, names, strings and comments, Python's own keywords apart."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    words = [word for token in tokens for word in re.findall("[a-z]+|[A-Z][a-z]*", token.string)
             if not keyword.iskeyword(token.string)]  # fmt: skip
    return {word for word in words if word.lower().startswith(TASK)}


def undeclared(text: str) -> set[str]:
    """Packages that a file imports and setup.py does not name."""
    known = re.findall(r'"([a-z][a-z0-9-]*)[><=]=', (ROOT / "setup.py").read_text())
    names = {name.partition(".")[0] for name in imports(text)} - sys.stdlib_module_names - {"hpcscale"}
    return {name for name in names if MODULES.get(name, name) not in known}


def broken_links(file: Path) -> list[str]:
    """Relative links of a Markdown file that lead nowhere."""
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", file.read_text())
    return [link for link in links if "://" not in link and not (file.parent / link).exists()]


def head(text: str) -> str:
    """What is wrong with the first line of a test: a docstring of one sentence that says what it covers."""
    docstring = ast.get_docstring(ast.parse(text)) or ""
    line = text.partition("\n")[0]
    if len(line) > 110 or not docstring.partition("\n")[0].endswith(".") or not line.startswith('"""'):
        return f"{line!r} is not a docstring of one line of at most 110 characters that ends with a full stop"
    return ""


def mirrors(file: str) -> bool:
    """Whether the package has what a test is of, by its folder or else its name: x/test_y.py, test_x.py."""
    part = file.partition("/")[0].removeprefix("test_").removesuffix(".py")
    return part in APART or any(name.stem == part for name in PACKAGE.iterdir())


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_imports_point_one_way_and_foreign_things_have_one_file(file: Path) -> None:
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not wrong_way(part, file.read_text())
    assert not misplaced(str(file.relative_to(ROOT)), file.read_text())
    assert not undeclared(file.read_text())


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_tests_mirror_the_package_and_say_what_they_cover(file: Path) -> None:
    assert not head(file.read_text())
    assert not file.name.startswith("test_") or mirrors(str(file.relative_to(TESTS)))


@pytest.mark.parametrize("file", ["loop.py", "job.py"])
def test_the_loop_knows_no_task(file: str) -> None:
    assert not task_words((PACKAGE / "train" / file).read_text())


def test_only_the_bindings_know_pybind11() -> None:
    sources = [file for kind in ("hpp", "cpp") for file in (ROOT / "cpp").rglob(f"*.{kind}")]
    assert [file.name for file in sources if "pybind11" in file.read_text()] == ["bindings.cpp"]


def test_help_comes_without_anything_heavy() -> None:
    code = """
import sys
from hpcscale.cli import COMMANDS, main
for words in ([], *([command] for command in COMMANDS)):
    main([*words, "--help"], standalone_mode=False)
heavy = {"torch", "h5py", "nvidia", "horovod", "matplotlib", "faiss"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "file", sorted({*ROOT.glob("*.md"), *ROOT.glob("benchmarks/**/*.md")}), ids=lambda f: f.name
)
def test_links_lead_somewhere(file: Path) -> None:
    assert not broken_links(file)


def test_no_two_modules_of_tests_have_one_name() -> None:
    """Pytest imports them by their bare names; those of the fuzz are a package."""
    names = [file.name for file in TESTS.rglob("*.py") if "fuzz" not in file.parts]
    twice = {name for name in names if names.count(name) > 1} - {"conftest.py"}
    assert twice == set()


def test_each_line_about_the_papers_has_a_test() -> None:
    names = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/papers.md").read_text(), re.MULTILINE)
    tests = "".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    assert {f"row_{number:02}" for number in range(1, 60)} <= {*names}
    assert [name for name in names if f"def test_{name}" not in tests] == []


def test_a_breach_of_each_rule_is_seen(tmp_path: Path) -> None:
    assert wrong_way("labels", "def f():\n    from hpcscale.data import store") == {"data"}
    assert wrong_way("report", "from hpcscale import data, config") == {"data"}
    assert wrong_way("report", "from hpcscale.evaluate import classify") == {"evaluate"}
    assert not wrong_way("report", "from hpcscale.evaluate import leaks")
    assert not wrong_way("labels", "import hpcscale.labels.wordnet, hpcscale.ops")
    assert misplaced(
        "hpcscale/evaluate/classify.py", "from nvidia.dali import fn\nfrom hpcscale import _ops"
    ) == {
        "nvidia",
        "hpcscale._ops",
    }
    assert task_words("class A:\n    x = tag_ids  # of pictures\n") == {"tag", "pictures"}
    assert task_words("x: BigTargets = f('a class')") == {"Targets", "class"}
    assert task_words("class Interrupted(Told): step, stages, maximal = 1, 2, 3") == set()
    assert head('"""Says what it covers, and more below.\n\nMore."""\n') == ""
    for text in ("", "x = 1", '"""Says it\non two lines."""', '"""No stop"""', f'"""{"long " * 22}."""'):
        assert head(text)
    assert mirrors("train/test_loop.py")
    assert mirrors("ops/test_pixels.py")
    assert mirrors("test_files.py")
    assert not mirrors("data_sets/test_store.py")
    assert not mirrors("test_store.py")
    assert undeclared("def f():\n    import psutil, somewhere.inside\nimport json") == {"somewhere"}
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](https://x.org) [c](gone.md) ![d](gone.png)")
    assert broken_links(page) == ["gone.md", "gone.png"]
