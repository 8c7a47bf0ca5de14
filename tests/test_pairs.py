"""Files of pairs and of decisions: any name survives, what is malformed is named, reviewers are merged."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale import pairs
from hpcscale.pairs import Decision, PairsError


def write(file, *lines):
    file.write_bytes(b"".join(line.encode(errors="surrogateescape") + b"\n" for line in lines))
    return file


NAMES = st.text(st.characters(codec="utf-8"), min_size=0, max_size=8) | st.sampled_from(
    [
        "a\tb",
        "a\\nb",
        "\n",
        "\r\n",
        "\udcff.jpg",
        "\udc9b",
        "\x9b",
        "\x1b[31m",
        "\u202e",
        "\u2028",
        "\\u001b",
        "</script>",
        "é",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 256) | st.floats(0, 2)), max_size=4))
def test_any_name_survives_a_pairs_file(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("pairs") / "p.tsv"
    write(file, *(f"{pairs.escape(a)}\t{pairs.escape(b)}\t{distance}" for a, b, distance in rows))
    assert [tuple(pair) for pair in pairs.read_pairs(file)] == rows
    obeyed = "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\udc80-\udc9f]"  # by a terminal that prints the file
    assert not re.search(obeyed, file.read_bytes().decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a\tb", "2 columns"),
        ("a\tb\t3\tc", "4 columns"),
        ("", "1 columns"),
        ("a\tb\tnear", "distance 'near' is not a number"),
        ("a\tb\tnan", "not a number"),
        ("a\tb\t1_0", "not a number"),
        ("a\tb\t" + "9" * 400, "is too large"),
        ("a\tb\t" + "9" * 5000, "is too large"),
        ("a\tb\t1e999", "is too large"),
        ("a\\u0041\tb\t3", "written as it is"),
        ("a\\ud83d\tb\t3", "written as it is"),
        ("a\\x\tb\t3", "backslash"),
    ],
)
def test_a_malformed_pair_is_named(tmp_path, line, why):
    file = write(tmp_path / "p.tsv", "a\tb\t1", line)
    with pytest.raises(PairsError, match=r"p\.tsv:2: .*" + why):
        list(pairs.read_pairs(file))


def decision(a, b, verdict, reviewer="", time=""):
    return json.dumps({"a": a, "b": b, "decision": verdict, "reviewer": reviewer, "time": time})


def test_decisions_survive_a_file(tmp_path):
    decided = {
        ("\udcff\t", "<b>"): Decision("accept", "ann", "2026-01-02T03:04:05Z"),
        ("a", "b"): Decision("reject", "bob"),
    }
    pairs.write_decisions(tmp_path / "d.jsonl", decided)
    assert pairs.read_decisions(tmp_path / "d.jsonl") == decided
    assert [file.name for file in tmp_path.iterdir()] == ["d.jsonl"]


def test_of_one_reviewer_the_newest_decision_counts(tmp_path):
    file = write(
        tmp_path / "d.jsonl",
        decision("a", "b", "accept", "ann", "2026-01-02T03:00:00+02:00"),
        decision("a", "b", "reject", "ann", "2026-01-02T02:00:00Z"),  # an hour later
        decision("a", "b", "accept", "ann", "2026-01-02T01:30:00"),
        "",
    )
    assert pairs.read_decisions(file) == {("a", "b"): Decision("reject", "ann", "2026-01-02T02:00:00Z")}


def test_merge_joins_what_is_agreed_and_keeps_apart_what_is_not(tmp_path):
    one = write(
        tmp_path / "1.jsonl",
        decision("a", "1", "accept", "ann", "2026-01-01"),
        decision("a", "2", "accept", "ann"),
        decision("a", "3", "reject", "ann"),
    )
    two = write(
        tmp_path / "2.jsonl",
        decision("a", "1", "accept", "bob", "2026-01-02"),
        decision("a", "2", "reject", "bob"),
        decision("a", "4", "reject"),
    )
    agreed, disputed = pairs.merge([one, two])
    assert agreed == {
        ("a", "1"): Decision("accept", "ann, bob", "2026-01-02"),
        ("a", "3"): Decision("reject", "ann"),
        ("a", "4"): Decision("reject", str(two)),
    }
    assert disputed == {("a", "2"): [Decision("accept", "ann"), Decision("reject", "bob")]}
    pairs.write_decisions(tmp_path / "m.jsonl", agreed)
    assert pairs.merge([tmp_path / "m.jsonl", one, two])[0][("a", "1")].reviewer == "ann, bob"


def test_two_without_a_name_are_two_reviewers(tmp_path):
    (tmp_path / "x").mkdir()
    one = write(tmp_path / "d.jsonl", decision("a", "b", "accept"))
    two = write(tmp_path / "x" / "d.jsonl", decision("a", "b", "reject"))
    assert len(pairs.merge([one, two])[1]) == 1


def test_a_file_in_which_reviewers_disagree_is_refused(tmp_path):
    file = write(
        tmp_path / "d.jsonl", decision("a", "b", "accept", "ann"), decision("a", "b", "reject", "bob")
    )
    with pytest.raises(PairsError, match=r"1 pairs are disputed.*ann: accept, bob: reject"):
        pairs.read_decisions(file)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting"),
        ("[]", "expected an object"),
        ('{"a": "x", "decision": "accept"}', "'b' must be a string"),
        (decision("a", "b", "maybe"), "'decision' is 'maybe', allowed: accept, reject"),
        (decision("a", "b", "accept", "ann", "noon"), "Invalid isoformat"),
        ('{"a": "x", "b": "y", "decision": "accept", "reviewer": 3}', "'reviewer' must be a string"),
        ("[" * 100_000, "too deep"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        (decision("a", "\ud83d", "accept"), "'b' holds half a character"),
    ],
)
def test_a_malformed_decision_is_named(tmp_path, line, why):
    file = write(tmp_path / "d.jsonl", decision("a", "b", "accept"), line)
    with pytest.raises(PairsError, match=r"d\.jsonl:2: .*" + why):
        pairs.read_decisions(file)
