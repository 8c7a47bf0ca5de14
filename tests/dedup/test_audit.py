"""The audit of a run: its metrics with and without the leaks, as JSON or a table, or why there is none."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from evaluated import CLASSES, random_results

from hpcscale.cli import main
from hpcscale.dedup.audit import as_json, as_text, audit
from hpcscale.evaluate import evaluations, metrics
from hpcscale.evaluate.leaks import LeakError


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
