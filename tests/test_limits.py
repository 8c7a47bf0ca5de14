"""How large things may be: files, functions, arguments, blocks that stand twice; or a reason stands beside.

A reason is a comment. `# long: why` stands at the head of a file, or on or above the `def` of a function
(above its decorators, where it has some); `# arguments: why` likewise; `# again: why` above a block or in it.
A command of click has a parameter for each of its options, however many they are.
"""

import ast
import re
from collections import defaultdict
from itertools import pairwise

from places import ROOT

FILES = {str(file.relative_to(ROOT)): file.read_text() for file in sorted((ROOT / "hpcscale").rglob("*.py"))}

LINES_OF = {"hpcscale/train/loop.py": 199}
LINES = 300  # of any other file
FUNCTION = 60  # lines from its `def` on
ARGUMENTS = 7  # without self and cls
BLOCK = 10  # lines without blank ones, comments, docstrings and imports

# What was beyond a limit when the limits came. What no longer is has to go from here.
ALLOWED = {
    "hpcscale/cluster/image.py build",
    "hpcscale/cluster/node.py",
    "hpcscale/config.py",
    "hpcscale/data/store.py",
    "hpcscale/evaluate/classify.py",
    "hpcscale/ingest/packing.py _pack",
    "hpcscale/ingest/packing.py ingest",
    "hpcscale/inputs/pipeline.py _batches",
    "hpcscale/inputs/pipeline.py train_batches",
    "hpcscale/train/loop.py",
    "hpcscale/train/loop.py assess",
    "hpcscale/train/loop.py train",
}


def reason(kind: str, lines: list[str]) -> bool:
    return any(re.search(rf"# {kind}: \w", line) for line in lines)


def beside(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> list[str]:
    """The line of a `def`, and the comments above it or above its decorators."""
    found = [lines[function.lineno - 1]]
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    for line in reversed(lines[: first - 1]):
        if not line.lstrip().startswith("#"):
            break
        found.append(line)
    return found


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller has to know; of a command of click, none."""
    if any(re.search(r"\bcommand\b", ast.unparse(decorator)) for decorator in function.decorator_list):
        return 0
    found = function.args
    names = [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def too_large(file: str, text: str) -> list[str]:
    """What of a file is beyond the limits, without a reason."""
    lines = text.splitlines()
    found = []
    if len(lines) > LINES_OF.get(file, LINES) and not reason("long", lines[:20]):
        found.append(f"{file}: {len(lines)} lines")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        near, length = beside(node, lines), (node.end_lineno or 0) - node.lineno + 1
        if length > FUNCTION and not reason("long", near):
            found.append(f"{file} {node.name}: {length} lines")
        if arguments(node) > ARGUMENTS and not reason("arguments", near):
            found.append(f"{file} {node.name}: {arguments(node)} arguments")
    return found


def code_lines(text: str) -> list[tuple[int, str]]:
    """Numbers and texts of the lines that count, their white space folded."""
    passed: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            passed |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return [
        (number, " ".join(line.split()))
        for number, line in enumerate(text.splitlines(), 1)
        if number not in passed and re.search(r"\w", line) and not line.lstrip().startswith("#")
    ]


def twice(files: dict[str, str]) -> list[str]:
    """Where blocks begin that stand in two places without a reason; of a pair of files, the first."""
    places = defaultdict(list)
    for file, text in files.items():
        code = code_lines(text)
        for index in range(len(code) - BLOCK + 1):
            block = code[index : index + BLOCK]
            places[tuple(line for _, line in block)].append((file, block[0][0], block[-1][0]))
    found: dict[tuple[str, str], str] = {}
    for same in places.values():
        for pair in pairwise(same):
            spans = [files[file].splitlines()[max(0, first - 2) : last] for file, first, last in pair]
            if not any(reason("again", span) for span in spans):
                one, other = pair
                found.setdefault((one[0], other[0]), f"{one[0]}:{one[1]} ~ {other[0]}:{other[1]}")
    return list(found.values())


def test_nothing_is_too_large_without_a_reason() -> None:
    found = [each for file, text in FILES.items() for each in too_large(file, text)]
    assert [each for each in found if each.partition(":")[0] not in ALLOWED] == []
    assert ALLOWED - {each.partition(":")[0] for each in found} == set()


def test_no_block_stands_twice_without_a_reason() -> None:
    assert twice(FILES) == []


def function(lines: int, head: str = "def f(self, a, b, c, d, *, e, f, g):", above: str = "") -> str:
    return "\n".join([above, head, *["    pass"] * (lines - 1)])


def test_a_breach_of_each_limit_is_seen() -> None:
    assert too_large("x", function(60)) == []
    assert too_large("x", function(61)) == ["x f: 61 lines"]
    assert too_large("x", "a\n" * 300) == []
    assert too_large("x", "a\n" * 301) == ["x: 301 lines"]
    assert too_large("hpcscale/train/loop.py", "a\n" * 200) == ["hpcscale/train/loop.py: 200 lines"]
    wide = "def f(a, b, c, d, *, e, f, g, h):"
    assert too_large("x", function(2, wide)) == ["x f: 8 arguments"]
    assert too_large("x", function(2, wide, "@group.command('f')")) == []


def test_a_reason_excuses_what_it_stands_beside() -> None:
    wide = "def f(a, b, c, d, e, f, g, h):"
    assert too_large("x", "# long: a table\n" + "a\n" * 301) == []
    assert too_large("x", function(61, wide, "# long: one table")) == ["x f: 8 arguments"]
    assert too_large("x", function(61, wide + "  # arguments: as C has them", "# long: one table")) == []
    assert too_large("x", function(61, wide, "# long: one table\n# arguments: as C has them\n@cached")) == []
    assert too_large("x", function(61, above="# long:")) == ["x f: 61 lines"]
    assert too_large("x", function(61, above="# long: another thing\npass")) == ["x f: 61 lines"]


def test_a_block_that_stands_twice_is_seen() -> None:
    block = [f"value = {number}" for number in range(BLOCK)]
    one = "\n".join(["import a", *block])
    other = "\n\n# a remark\n".join(["if a:\n  a", *(f"  {line}" for line in block)])
    assert twice({"a": one, "b": other}) == ["a:2 ~ b:5"]
    assert twice({"a": one, "b": other.replace("remark", "remark\n# again: why", 1)}) == []
    assert twice({"a": one, "b": "\n".join(block[1:])}) == []
    assert twice({"a": one + "\n" + one}) == ["a:2 ~ a:13"]
