"""Hierarchies: closure against networkx, a user's file, and errors that name the classes."""

import json
import os

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import jft
from hpcscale import ops
from hpcscale.labels.hierarchy import HierarchyError, build, csr, depths, fan_outs, read


@st.composite
def dags(draw, most=30):
    """Parents of every class of a random DAG, whose numbering says nothing about its order."""
    n = draw(st.integers(1, most))
    order = draw(st.permutations(range(n)))
    parents = [[] for _ in range(n)]
    for place in range(1, n):
        some = draw(st.lists(st.integers(0, place - 1), max_size=3, unique=True))
        parents[order[place]] = [order[each] for each in some]
    return parents


@settings(max_examples=60, deadline=None)
@given(dags())
def test_row_01_ancestors_equal_networkx(parents):
    tree = build([str(c) for c in range(len(parents))], parents)
    graph = networkx.DiGraph((p, c) for c, above in enumerate(parents) for p in above)
    graph.add_nodes_from(range(len(parents)))
    for c in range(len(parents)):
        assert tree.ancestors(c) == sorted(networkx.ancestors(graph, c))
    levels = dict.fromkeys(graph, 0)
    for c in networkx.topological_sort(graph):
        levels[c] = max((levels[p] + 1 for p in parents[c]), default=0)
    assert depths(tree).tolist() == [levels[c] for c in range(len(parents))]
    assert fan_outs(tree).tolist() == [graph.out_degree(c) for c in range(len(parents))]


@settings(max_examples=60, deadline=None)
@given(dags(), st.data())
def test_a_cycle_is_found_and_printed(parents, data):
    child = data.draw(st.integers(0, len(parents) - 1))
    tree = build([str(c) for c in range(len(parents))], parents)
    above = data.draw(st.sampled_from([child, *tree.ancestors(child)]))
    parents[above] = [*parents[above], child]
    cycle = ops.find_cycle(*csr(parents))
    assert cycle
    assert len(set(cycle)) == len(cycle)
    for c, parent in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        assert parent in parents[c]
    with pytest.raises(HierarchyError, match=r"'c\d+' -> 'c\d+'"):
        build([f"c{c}" for c in range(len(parents))], parents)


def test_a_hierarchy_of_jfts_size():
    tree = build([str(c) for c in range(jft.CLASSES)], jft.parents())
    assert depths(tree).max() == 12
    assert fan_outs(tree).max() == 2876
    assert len(tree.names) == 18291
    # In a tree the number of ancestors is the depth.
    assert np.diff(tree.ancestor_offsets).tolist() == depths(tree).tolist()


FORMS = {
    "tree.tsv": 'class\tparent\nfruit\t\napple\tfruit\n"red"\tapple\n"red"\tcolour\n\ncolour\n',
    "tree.csv": 'fruit\napple,fruit\n"""red""",apple\n"""red""",colour\ncolour,\n',
    "tree.jsonl": '{"class": "fruit", "parent": null}\n{"class": "apple", "parent": "fruit"}\n'
    '{"class": "\\"red\\"", "parent": "apple"}\n{"class": "\\"red\\"", "parent": "colour"}\n'
    '{"class": "colour"}\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_read(tmp_path, name):
    file = tmp_path / name
    file.write_text(FORMS[name])
    tree = read(file)
    assert tree.names == ("fruit", "apple", '"red"', "colour")
    assert tree.parents == ((), (0,), (1, 3), ())
    assert tree.ancestors(2) == [0, 1, 3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "apple\tfruit\npear\tfriut\nfruit\n", "1 unknown parent.*'friut'"),
        ("a.tsv", "a\tb\nb\tc\nc\ta\n", "'a' -> 'b' -> 'c' -> 'a'"),
        ("a.tsv", "a\ta\n", "'a' -> 'a'"),
        ("a.tsv", "b\na\tb\na\tb\n", "line 3 gives the parent 'b' of 'a' again, after line 2"),
        ("a.tsv", "b\nb\n", "line 2 gives 'b' again"),
        ("a.tsv", "a\tb\tc\n", "line 1 has 3 columns"),
        ("a.tsv", "\tb\n", "line 1 names no class"),
        ("a.tsv", "class\tparent\n", "no class found"),
        ("a.xls", "", "must end in .tsv"),
        ("a.jsonl", '{"class": "a"}\nnonsense\n', "line 2: not JSON"),
        ("a.jsonl", '{"class": "a", "parents": []}\n', "line 1 needs"),
        ("a.jsonl", '{"class": 7}\n', "must be strings"),
        ("a.jsonl", '{"class": ""}\n', "line 1 names no class"),
        ("a.jsonl", '{"class": ' + "[" * 100_000 + "\n", "line 1: not JSON.*too deep"),
        ("a.jsonl", '{"class": "a", "parent": ' + "9" * 5000 + "}\n", "line 1: not JSON"),
        ("a.jsonl", '{"class": "\\ud83d"}\n', r"line 1: the name '\\ud83d' holds half a character"),
        ("a.jsonl", '{"class": "a\\nb"}\n', r"line 1: the name 'a\\nb' goes over a line break"),
        ("a.csv", 'a\n"b\nc"\n', r"line 2: the name 'b\\nc' goes over a line break"),
        ("a.csv", 'a\n"b\n', "line 2: not CSV"),
        ("a.csv", f"a\n{'b' * 200_000}\n", "line 2: not CSV: field larger than field limit"),
        ("a.tsv", b"a\n\xff\n", "not UTF-8"),
        ("b.tsv", None, "cannot be read"),
    ],
)
def test_read_says_what_is_wrong(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HierarchyError, match=message) as error:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


# What str.splitlines takes for an end of line beside "\n".
SEPARATORS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_only_a_newline_ends_a_line(tmp_path, suffix):
    """A name with a line separator inside was two names, which left its pictures without their class."""
    file, names = tmp_path / f"tree.{suffix}", [f"sea{separator}lion" for separator in SEPARATORS]
    if suffix == "jsonl":
        lines = [json.dumps({"class": name}, ensure_ascii=False) for name in names]
    else:
        lines = names
    file.write_bytes("\r\n".join([*lines, ""]).encode())
    assert read(file).names == tuple(names)


def test_a_pipe_is_no_hierarchy(tmp_path):
    os.mkfifo(tmp_path / "tree.tsv")
    with pytest.raises(HierarchyError, match="not a regular file"):
        read(tmp_path / "tree.tsv")
