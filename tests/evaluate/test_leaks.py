"""The audit: which samples leak, metrics with and without them, pairs and decisions files."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from evaluated import CLASSES, random_results
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale import pairs
from hpcscale.cli import main
from hpcscale.dedup.audit import as_json, as_text, audit
from hpcscale.evaluate import evaluations, leaks, metrics
from hpcscale.evaluate.leaks import LeakError
from hpcscale.pairs import Decision, Pair, PairsError


def make_run(run, which="validation", names=("0.jpg", "1.jpg", "2.jpg", "3.jpg"), step=30):
    results = random_results(len(names))
    rows = [(c, f"class {c}", c + 1, 1, 0.5, 0.5) for c in range(CLASSES)]
    empty = np.zeros(0, np.int64), np.zeros((0, 8, 8, 3), np.uint8)
    folder = run / "evaluations" / f"{which}-{step:08d}"
    evaluations.save(folder, {"set": which, "step": step}, rows, results, list(names), empty)
    return results


def write(file, *lines):
    file.write_bytes(b"".join(line.encode(errors="surrogateescape") + b"\n" for line in lines))
    return file


# arithmetic


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 30), seed=st.integers(0, 99), share=st.sampled_from([0, 0.3, 1]))
def test_parts_are_the_metrics_of_the_samples_in_them(n, seed, share):
    results = random_results(n, seed)
    dups = np.random.default_rng(seed).random(n) < share
    weights = np.arange(1.0, CLASSES + 1)
    parts = leaks.split(results, weights, dups)
    single = results.truths >= 0
    correct = single & (results.guesses[:, 0] == results.truths)
    for part, rows in ((parts.full, slice(None)), (parts.dedup, ~dups), (parts.dups, dups)):
        assert part["samples"] == np.arange(n)[rows].size
        expected = correct[rows].sum() / single[rows].sum() if single[rows].any() else None
        assert part["top1"] == expected
    assert parts.full == metrics.measure(results, weights)
    if single.any():
        assert parts.lower_bound["top1"] == pytest.approx((correct & ~dups).sum() / single.sum())
        assert parts.lower_bound["top1"] <= parts.full["top1"] + 1e-12
        all_wrong = parts.full["top1"] - (dups & single).sum() / single.sum()
        assert parts.lower_bound["top1"] >= all_wrong - 1e-12
        mean = sum((part["top1"] or 0) * part["single"] for part in (parts.dedup, parts.dups)) / single.sum()
        assert parts.full["top1"] == pytest.approx(mean)
    else:
        assert parts.lower_bound == {"top1": None, "top5": None}


def test_delta_is_undefined_where_a_part_is():
    parts = leaks.split(random_results(5), np.ones(CLASSES), np.ones(5, bool))
    assert leaks.delta(parts, "map100") is None
    assert parts.dedup["loss"] is None
    assert parts.dups == parts.full


# which samples leak

TEST = {"t1", "t2", "t3"}
FOUND = [Pair("x1", "t1", 3), Pair("x2", "t1", 8), Pair("x2", "t3", 9)]
REVERSED = [Pair(b, a, distance) for a, b, distance in FOUND]


def test_the_column_of_the_test_set_is_found_by_names():
    found = leaks.find_leaks(FOUND, TEST, {}, within=False)
    assert found == leaks.Leaks({"t1", "t3"}, "b", 3, 0, 0)
    found = leaks.find_leaks(REVERSED, TEST, {}, within=False)
    assert found == leaks.Leaks({"t1", "t3"}, "a", 3, 0, 0)


def test_names_in_both_columns_are_ambiguous_unless_the_side_is_said():
    both = [*FOUND, Pair("t2", "t3", 1)]
    with pytest.raises(LeakError, match="both columns"):
        leaks.find_leaks(both, TEST, {}, within=False)
    assert leaks.find_leaks(both, TEST, {}, within=False, side="a").names == {"t2"}
    assert leaks.find_leaks(both, TEST, {}, within=False, side="b").names == {"t1", "t3"}


def test_within_one_data_set_a_pair_of_two_test_samples_is_no_leak():
    both = [Pair("t1", "x1", 3), Pair("x2", "t2", 3), Pair("t2", "t3", 0), Pair("x1", "x2", 0)]
    assert leaks.find_leaks(both, TEST, {}, within=True) == leaks.Leaks({"t1", "t2"}, "either", 2, 0, 0)


def test_pairs_of_something_else_are_refused():
    with pytest.raises(LeakError, match="no name"):
        leaks.find_leaks([Pair("x", "y", 1)], TEST, {}, within=False)
    with pytest.raises(LeakError, match="column a"):
        leaks.find_leaks(FOUND, TEST, {}, within=False, side="a")
    assert leaks.find_leaks([], TEST, {}, within=False).names == set()


def test_rejected_pairs_do_not_count_and_undecided_ones_do():
    decided = {
        ("x1", "t1"): Decision("reject"),
        ("x2", "t3"): Decision("reject"),
        ("o", "o"): Decision("reject"),
    }
    assert leaks.find_leaks(FOUND, TEST, decided, within=False) == leaks.Leaks({"t1"}, "b", 3, 0, 2)
    decided[("x2", "t1")] = Decision("accept")
    assert leaks.find_leaks(FOUND, TEST, decided, within=False) == leaks.Leaks({"t1"}, "b", 3, 1, 2)
    decided[("x2", "t1")] = Decision("reject")
    assert leaks.find_leaks(FOUND, TEST, decided, within=False).names == set()


# a run folder


def test_audit_of_a_run(tmp_path):
    results = make_run(tmp_path)
    make_run(tmp_path, step=4, names=("old.jpg",))  # an older evaluation
    file = write(tmp_path / "p.tsv", "a/1.jpg\t1.jpg\t3", "a/2.jpg\t1.jpg\t4", "a/2.jpg\t3.jpg\t31")
    found = as_json(audit(tmp_path, file))
    assert (found["set"], found["step"], found["side"]) == ("validation", 30, "b")
    assert (found["samples"], found["duplicates"], found["pairs"]) == (4, 2, 3)
    weights = np.arange(1.0, CLASSES + 1)
    assert found["full"] == metrics.measure(results, weights)
    assert found["dedup"] == metrics.measure(metrics.select(results, np.array([0, 2])), weights)
    assert found["dups"] == metrics.measure(metrics.select(results, np.array([1, 3])), weights)
    assert found["delta"]["loss"] == found["dedup"]["loss"] - found["full"]["loss"]
    assert json.loads(json.dumps(found)) == found
    decided = write(tmp_path / "d.jsonl", '{"a": "a/2.jpg", "b": "3.jpg", "decision": "reject"}')
    found = as_json(audit(tmp_path, file, "validation", decided))
    assert (found["duplicates"], found["rejected"], found["undecided"]) == (1, 1, 2)
    text = as_text(audit(tmp_path, file, "validation", decided))
    assert "1 of 4 samples (25.00 %)" in text
    assert "rejected 1" in text


def test_a_held_out_set_takes_pairs_within_its_data_set(tmp_path):
    make_run(tmp_path, "held_out")
    file = write(tmp_path / "p.tsv", "0.jpg\t9.jpg\t3", "8.jpg\t2.jpg\t0", "1.jpg\t2.jpg\t0")
    assert as_json(audit(tmp_path, file))["duplicates"] == 2


def test_what_cannot_be_audited_is_named(tmp_path):
    file = write(tmp_path / "p.tsv", "0.jpg\t1.jpg\t3")
    with pytest.raises(
        LeakError, match="no evaluation of set validation or held_out or train; there are: none"
    ):
        audit(tmp_path, file)
    make_run(tmp_path)
    with pytest.raises(LeakError, match="no evaluation of set train; there are: validation"):
        audit(tmp_path, file, "train")
    with pytest.raises(LeakError, match=r"p\.tsv: both columns"):
        audit(tmp_path, file)
    (tmp_path / "evaluations" / "validation-00000030" / "samples.npz").write_bytes(b"PK\3\4")
    with pytest.raises(LeakError, match="validation-00000030: cannot be read"):
        audit(tmp_path, file)


def test_the_command_prints_json_or_a_table_or_why_not(tmp_path):
    make_run(tmp_path)
    clear = write(tmp_path / "clear.tsv", "x\t1.jpg\t3")
    both = write(tmp_path / "both.tsv", "0.jpg\t1.jpg\t3")

    def run(*words):
        return CliRunner().invoke(main, ["dedup", "audit", str(tmp_path), *map(str, words)])

    assert json.loads(run("--pairs", clear, "--json").stdout) == as_json(audit(tmp_path, clear))
    assert "1 of 4 samples (25.00 %)" in run("--pairs", clear).stdout
    done = run("--pairs", both)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "say it with --test" in done.stderr
    assert json.loads(run("--pairs", both, "--test", "a", "--json").stdout)["side"] == "a"
    assert run("--pairs", tmp_path / "none.tsv").exit_code == 2


# files

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
