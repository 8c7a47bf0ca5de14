"""Groups against networkx, and which names go on which side."""

import json
from pathlib import Path

import networkx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpcscale.cli import main
from hpcscale.dedup.groups import counting, drop, groups
from hpcscale.pairs import Pair, PairsError

EDGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda edge: edge[0] < edge[1]), unique=True
)


@given(EDGES)
def test_groups_are_connected_components(edges: list[tuple[int, int]]) -> None:
    """Sorted as a search writes them, so that the first of a group is its earliest picture."""
    found = groups([Pair(str(a), str(b), 0) for a, b in sorted(edges)])
    expected = networkx.connected_components(networkx.Graph(edges))
    assert {frozenset(map(int, group)) for group in found} == {frozenset(group) for group in expected}
    assert all(int(group[0]) == min(map(int, group)) for group in found)
    assert len(found) == len({name for group in found for name in group[:1]})


def test_a_long_chain_is_one_group() -> None:
    chain = groups([Pair(str(i), str(i + 1), 0) for i in range(100_000)])
    assert [len(group) for group in chain] == [100_001]
    back = groups([Pair(str(i), str(i + 1), 0) for i in reversed(range(100_000))])
    assert len(back) == 1


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.tsv"
    file.write_text("t1\tv1\t3\nt1\tv2\t31\nt2\tv2\t8\nt\\t3\tv9\t10\n")
    return file


@pytest.mark.parametrize(
    ("side", "radius", "names"),
    [
        ("a", None, ["t1", "t2", "t\\t3"]),
        ("b", None, ["v1", "v2", "v9"]),
        ("a", 8, ["t1", "t2"]),
        ("b", 3, ["v1"]),
        ("within", None, ["t2", "v1", "v2", "v9"]),
        ("within", 10, ["v1", "v2", "v9"]),
        ("a", 2, []),
    ],
)
def test_row_36_sides(pairs: Path, tmp_path: Path, side: str, radius: int | None, names: list[str]) -> None:
    options = [] if radius is None else ["--radius", str(radius)]
    out = tmp_path / "drop.txt"
    result = CliRunner().invoke(
        main, ["dedup", "drop", str(pairs), "--side", side, "--out", str(out), *options]
    )
    assert result.exit_code == 0, result.output
    assert out.read_text() == "".join(name + "\n" for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop.txt", "pairs.tsv"]


def test_rejected_pairs_do_not_count(pairs: Path, tmp_path: Path) -> None:
    decisions = tmp_path / "decisions.jsonl"
    said = [("t1", "v1", "reject"), ("v2", "t1", "reject"), ("t2", "v2", "accept"), ("x", "y", "reject")]
    decisions.write_text("".join(json.dumps({"a": a, "b": b, "decision": d}) + "\n" for a, b, d in said))
    assert drop(pairs, "a", tmp_path / "out", decisions=decisions) == 2
    assert (tmp_path / "out").read_text() == "t2\nt\\t3\n"


def test_pairs_within_the_radius_count_and_the_radius_is_inclusive() -> None:
    pairs = [Pair("a", "b", distance) for distance in (0, 31, 32)]
    assert [pair.distance for pair in counting(pairs, 31, {})] == [0, 31]


def test_a_damaged_pairs_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("a\tb\t1\na\tb\n")
    with pytest.raises(PairsError, match=r"pairs\.tsv:2"):
        drop(tmp_path / "pairs.tsv", "a", tmp_path / "out")
    assert not (tmp_path / "out").exists()
