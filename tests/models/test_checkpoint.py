"""Checkpoints: what goes in comes out, damage is seen and passed over, a full disk loses nothing."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from hpcscale import files
from hpcscale.models import checkpoint

MODEL = {
    "conv.weight": torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last),
    "bn.num_batches_tracked": torch.tensor(7),
    "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
}
OPTIMIZER = {"conv.weight.momentum_buffer": torch.randn(4, 3, 3, 3)}


def save(run: Path, step: int, keep: int = 2, **metadata: Any) -> checkpoint.Checkpoint:
    model = MODEL | {"step": torch.tensor(step)}
    return checkpoint.save(run, step, model, OPTIMIZER, metadata, keep)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.folder(run).iterdir())


def newest(run: Path) -> checkpoint.Checkpoint:
    found = checkpoint.latest(run)
    assert found is not None
    return found


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, 5, classes="abc")
    found = newest(tmp_path)
    assert (found.step, found.metadata) == (5, {"classes": "abc"})
    model, optimizer = checkpoint.load(found)
    assert model.keys() == {*MODEL, "step"}
    for name, tensor in MODEL.items():
        assert model[name].dtype == tensor.dtype
        assert torch.equal(model[name].nan_to_num(9.0), tensor.nan_to_num(9.0))
    assert torch.equal(optimizer["conv.weight.momentum_buffer"], OPTIMIZER["conv.weight.momentum_buffer"])
    into = {name: torch.zeros_like(tensor) for name, tensor in model.items()}
    checkpoint.restore(into, model, found.file)
    assert torch.equal(into["conv.weight"], MODEL["conv.weight"])


def test_none_in_a_new_run(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        save(tmp_path, step)
    assert names(tmp_path) == [
        "step-00000010.json",
        "step-00000010.safetensors",
        "step-00000100.json",
        "step-00000100.safetensors",
    ]


def test_row_28_checkpoints_of_stated_steps_stay(tmp_path: Path) -> None:
    """Whatever comes, also where the run goes on from before them, beside the newest."""
    for step in (1, 2, 10, 100, 4):  # a damaged checkpoint 100, say, and so back to 2
        checkpoint.save(tmp_path, step, MODEL, OPTIMIZER, {}, keep=1, keep_at=(2, 10, 5))
    assert [name for name in names(tmp_path) if name.endswith(".json")] == [
        f"step-{step:08}.json" for step in (2, 4, 10)
    ]
    assert len(names(tmp_path)) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[: len(data) // 2],
        lambda data: b"",
    ],
    ids=["bit", "half", "empty"],
)
def test_damaged_tensors_are_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save(tmp_path, 1)
    bad = save(tmp_path, 2).file
    bad.write_bytes(damage(bad.read_bytes()))
    assert newest(tmp_path).step == 1
    assert str(bad) in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 2}', "\x00\x00"])
def test_damaged_record_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    save(tmp_path, 1)
    bad = save(tmp_path, 2).file.with_suffix(".json")
    bad.write_text(text)
    assert newest(tmp_path).step == 1
    assert str(bad) in caplog.text


def test_every_changed_byte_of_a_record_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A digit of the step, say, once resumed at another step with these weights."""
    save(tmp_path, 1)
    bad = save(tmp_path, 23, window=[1.5, 2]).file.with_suffix(".json")
    content = bad.read_bytes()
    same = json.loads(content)
    for place in range(len(content)):
        for byte in {content[place] ^ 1, ord("7")} - {content[place]}:
            bad.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                unchanged = json.loads(bad.read_bytes()) == same  # a changed space
            except ValueError:
                unchanged = False
            assert newest(tmp_path).step == (23 if unchanged else 1), content[: place + 1]
    assert "its digest differs" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(step=100), "is of step 100, which is not its name"),
        (lambda record: record.update(step="2"), "is of step 2, which is not its name"),
        (lambda record: record.pop("metadata"), "not a record with step, sha256, metadata and digest"),
    ],
)
def test_a_record_is_compared_with_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any, message: str
) -> None:
    save(tmp_path, 1)
    file = save(tmp_path, 2).file
    tiny.rewrite(file.with_suffix(".json"), change)
    assert newest(tmp_path).step == 1
    assert message in caplog.text
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.find(file)


def test_a_record_without_a_digest_is_refused(tmp_path: Path) -> None:
    record = save(tmp_path, 1).file.with_suffix(".json")
    content = json.loads(record.read_text())
    del content["digest"]
    record.write_text(json.dumps(content))
    with pytest.raises(checkpoint.CheckpointError, match=r"none of the checkpoints there is whole \(step-0"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", None])
def test_where_all_records_are_damaged_nothing_begins_anew(tmp_path: Path, text: str | None) -> None:
    for record in [save(tmp_path, step).file.with_suffix(".json") for step in (1, 2)]:
        if text is None:
            record.unlink()
        else:
            record.write_text(text)
    with pytest.raises(checkpoint.CheckpointError, match="move the folder away to begin at step 0"):
        checkpoint.latest(tmp_path)


def test_tensors_of_a_first_save_that_was_killed_are_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1).file.with_suffix(".json").unlink()
    assert checkpoint.latest(tmp_path) is None


def test_only_our_names_are_read_and_removed(tmp_path: Path) -> None:
    """`step-best` beside the checkpoints was once resumed from, and then deleted."""
    saved = save(tmp_path, 1)
    place = checkpoint.folder(tmp_path)
    others = ["step-best", "step-999", "step-000000001", "step-00000009 (copy)", "best-00000001"]
    for name in others:
        for suffix in (".json", ".safetensors"):
            (place / (name + suffix)).write_bytes(saved.file.with_suffix(suffix).read_bytes())
    kept = {"step-best.tmp", "upload.json.tmp", "step-00000001.json.bak", ".lock-x"}
    for name in kept:
        (place / name).touch()
    assert newest(tmp_path).step == 1
    for step in (2, 3):
        save(tmp_path, step, keep=1)
    kept |= {name + suffix for name in others for suffix in (".json", ".safetensors")}
    assert {*names(tmp_path)} == kept | {"step-00000003.json", "step-00000003.safetensors"}
    with pytest.raises(checkpoint.CheckpointError, match="their names are step-, eight digits"):
        checkpoint.find(place / "step-best.safetensors")


def test_missing_tensors_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).file.unlink()
    assert newest(tmp_path).step == 1


def test_tensors_without_record_do_not_count_and_are_cleaned(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).file.with_suffix(".json").unlink()
    (checkpoint.folder(tmp_path) / "step-00000003.safetensors.tmp").write_bytes(b"half")
    assert newest(tmp_path).step == 1
    save(tmp_path, 4)
    assert [name for name in names(tmp_path) if name.endswith(("2.safetensors", ".tmp"))] == []


def test_an_abandoned_future_does_not_displace_the_good_one(tmp_path: Path) -> None:
    """Step 30 is damaged, the run went back to 20 and saves 25: with keep=1 exactly 25 stays."""
    for step in (20, 30):
        save(tmp_path, step)
    save(tmp_path, 25, keep=1)
    assert names(tmp_path) == ["step-00000025.json", "step-00000025.safetensors"]


def test_full_disk_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    before = names(tmp_path)

    def full(tensors: dict[str, torch.Tensor], file: Path) -> None:
        Path(file).write_bytes(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"step-00000002\.safetensors.*No space left.*that stay: step-00000001",
    ):
        save(tmp_path, 2)
    assert names(tmp_path) == before
    assert newest(tmp_path).step == 1


def test_real_full_disk(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    place = checkpoint.folder(tmp_path)
    place.mkdir()
    (place / "step-00000002.json.tmp").symlink_to("/dev/full")
    save(tmp_path, 1)
    assert newest(tmp_path).step == 1  # the leftover link was cleaned, not written through


def test_a_disk_that_lies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, file)

    monkeypatch.setattr(checkpoint, "save_file", lies)
    with pytest.raises(checkpoint.CheckpointError, match="read back"):
        save(tmp_path, 1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", range(10))
def test_stopped_between_any_two_file_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Whatever is done when the power goes, the newest checkpoint is a good one: the old or the new."""
    save(tmp_path, 1)
    calls = 0

    class PowerCut(BaseException):
        pass

    def cut(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise PowerCut

    def then(name: str, real: Any) -> Any:
        def operation(*arguments: Any, **keys: Any) -> Any:
            cut()
            return real(*arguments, **keys)

        return operation

    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, then(name, getattr(Path, name)))
    for module in (checkpoint, files):
        monkeypatch.setattr(module, "sync", then("sync", files.sync))
    try:
        save(tmp_path, 2, keep=1)
    except PowerCut:
        pass
    else:
        pytest.fail("there are fewer operations than this test believes")
    monkeypatch.undo()
    found = newest(tmp_path)
    assert int(checkpoint.load(found)[0]["step"]) == found.step in (1, 2)


def test_restore_names_what_does_not_fit(tmp_path: Path) -> None:
    file = Path("x")
    with pytest.raises(checkpoint.CheckpointError, match=r"missing \['a'\], unknown \['b'\]"):
        checkpoint.restore({"a": torch.zeros(1)}, {"b": torch.zeros(1)}, file)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"a is torch.float32 \(2,\), expected torch.float32 \(1,\)"
    ):
        checkpoint.restore({"a": torch.zeros(1)}, {"a": torch.zeros(2)}, file)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle in place of the tensors, with a digest that holds, is an error and not a program."""
    saved = save(tmp_path, 1)
    torch.save(MODEL, saved.file)
    digest = checkpoint._digest(saved.file)
    tiny.rewrite(saved.file.with_suffix(".json"), lambda record: record.update(sha256=digest))
    with pytest.raises(checkpoint.CheckpointError, match="cannot be read"):
        checkpoint.load(newest(tmp_path))


def test_a_first_checkpoint_that_appears_while_one_looks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called damaged."""
    real, looked = checkpoint.whole, []

    def then_written(run: Path) -> Iterator[checkpoint.Checkpoint]:
        if not looked:
            looked.append(run)
            checkpoint.save(run, 1, {"w": torch.ones(1)}, {}, {}, 3)
            return iter(())
        return real(run)

    monkeypatch.setattr(checkpoint, "whole", then_written)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1
