"""benchmarks/scale.py on a small set: it measures what a rank does, and says where a limit is broken."""

from pathlib import Path

import pytest

from benchmarks import scale, synthetic


def test_the_simulation_runs_and_a_broken_limit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an index, a set as small as this would be walked.
    names = ("a tenth, natural", "a tenth, square root, repeat factors")
    monkeypatch.setattr(scale, "RECIPES", {name: scale.RECIPES[name] for name in names})
    monkeypatch.setattr(scale, "RESIDENT", 1)
    monkeypatch.setattr(scale, "BATCH", 1e6)  # times are not tested
    text, broken = scale.measured(tmp_path, synthetic.World(300_000, 100))
    assert [limit.partition(" has ")[0] for limit in broken] == [f"{name}: a rank" for name in names]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| a")]
    assert [row[0] for row in rows] == [f"| {name}" for name in names]
    assert rows[0][1] == "30,000"
    assert 90_000 < int(rows[1][1].replace(",", "")) < 130_000  # rare classes are repeated
    assert [row[-1] for row in rows] == ["same |"] * 2
    assert "## The index of 30,000 samples" in text


def test_samples_are_drawn_with_few_of_rare_classes() -> None:
    world = synthetic.World(1_000_000, 50)
    parts = list(synthetic.candidates(world))
    samples = [sample for rows in parts for sample in rows.samples.tolist()]
    assert len(samples) == 100_000
    assert [sample // 10 for sample in samples] == list(range(100_000))
    counts = (
        sum(rows.classes.tolist().count(0) for rows in parts),
        sum(rows.classes.tolist().count(9) for rows in parts),
    )
    assert counts[0] / counts[1] == pytest.approx(10, rel=0.2)
    labels = sum(len(rows.classes) for rows in parts)
    assert 1.2 < labels / len(samples) < 1.26  # a second class, unless it is the first
