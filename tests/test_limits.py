"""How large things may be: files, functions, arguments, blocks that stand twice; or a reason stands beside.

A reason is a comment. `# long: why` stands at the head of a file, or on or above the `def` of a function
(above its decorators, where it has some); `# arguments: why` likewise; `# again: why` above a block or in it.
A command of click has a parameter for each of its options, however many they are.
"""

import ast
import re
from collections import defaultdict
from itertools import chain, pairwise

from places import ROOT

LINES = {"hpcscale": 300, "benchmarks": 300, "tests": 400, "hpcscale/train/loop.py": 199}  # of a file
FUNCTION = 60  # lines from its `def` on; not in tests
ARGUMENTS = 7  # without self and cls; not in tests
BLOCK = 10  # lines without blank ones, comments, docstrings and imports; in the package


def texts(folder: str) -> dict[str, str]:
    return {str(file.relative_to(ROOT)): file.read_text() for file in sorted((ROOT / folder).rglob("*.py"))}


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
    folder = file.partition("/")[0]
    if len(lines) > LINES.get(file, LINES[folder]) and not reason("long", lines[:20]):
        found.append(f"{file}: {len(lines)} lines")
    if folder == "tests":
        return found
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
    """Where runs begin that stand in two places without a reason; of a pair of files, the first."""
    code = {file: code_lines(text) for file, text in files.items()}
    places = defaultdict(list)
    for file, lines in code.items():
        for index in range(len(lines) - BLOCK + 1):
            places[tuple(line for _, line in lines[index : index + BLOCK])].append((file, index))
    found: dict[tuple[str, str], str] = {}
    for (one, first), (other, second) in chain.from_iterable(map(pairwise, places.values())):
        if first and second and code[one][first - 1][1] == code[other][second - 1][1]:
            continue  # this run began before
        spans = []
        for file, index in ((one, first), (other, second)):
            begin, end = code[file][index][0], code[file][index + BLOCK - 1][0]
            spans.append(files[file].splitlines()[max(0, begin - 2) : end])
        if not any(reason("again", span) for span in spans):
            found.setdefault((one, other), f"{one}:{code[one][first][0]} ~ {other}:{code[other][second][0]}")
    return list(found.values())


def test_nothing_is_too_large_without_a_reason() -> None:
    files = texts("hpcscale") | texts("benchmarks") | texts("tests")
    assert [each for file, text in files.items() for each in too_large(file, text)] == []


def test_no_block_stands_twice_without_a_reason() -> None:
    assert twice(texts("hpcscale")) == []


def function(lines: int, head: str = "def f(self, a, b, c, d, *, e, f, g):", above: str = "") -> str:
    return "\n".join([above, head, *["    pass"] * (lines - 1)])


def breaches(text: str, file: str = "hpcscale/x.py") -> list[str]:
    return [each.removeprefix(file) for each in too_large(file, text)]


WIDE = "def f(a, b, c, d, *, e, f, g, h):"


def test_a_breach_of_each_limit_is_seen() -> None:
    assert breaches(function(60)) == []
    assert breaches(function(61)) == [" f: 61 lines"]
    assert breaches("a\n" * 300) == []
    assert breaches("a\n" * 301) == [": 301 lines"]
    assert breaches("a\n" * 200, "hpcscale/train/loop.py") == [": 200 lines"]
    assert breaches(function(399), "tests/x.py") == []
    assert breaches(function(400), "tests/x.py") == [": 401 lines"]
    assert breaches(function(2, WIDE)) == [" f: 8 arguments"]
    assert breaches(function(2, WIDE, "@group.command('f')")) == []


def test_a_reason_excuses_what_it_stands_beside() -> None:
    assert breaches("# long: a table\n" + "a\n" * 301) == []
    assert breaches(function(61, WIDE, "# long: one table")) == [" f: 8 arguments"]
    assert breaches(function(61, WIDE + "  # arguments: as C has them", "# long: one table")) == []
    assert breaches(function(61, WIDE, "# long: one table\n# arguments: as C has them\n@cached")) == []
    assert breaches(function(61, above="# long:")) == [" f: 61 lines"]
    assert breaches(function(61, above="# long: another thing\npass")) == [" f: 61 lines"]


def test_a_block_that_stands_twice_is_seen() -> None:
    block = [f"value = {number}" for number in range(BLOCK + 3)]
    one = "\n".join(["import a", *block])
    other = "\n\n# a remark\n".join(["if a:\n  a", *(f"  {line}" for line in block)])
    assert twice({"a": one, "b": other}) == ["a:2 ~ b:5"]
    assert twice({"a": one, "b": other.replace("remark", "remark\n# again: why", 1)}) == []
    assert twice({"a": one, "b": "\n".join(block[4:])}) == []
    assert twice({"a": f"{one}\npass\n{one}"}) == ["a:2 ~ a:17"]
