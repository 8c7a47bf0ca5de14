"""What the %test of an image says: how pictures were decoded, with which NCCL, and what was skipped."""

from unittest.mock import Mock

import pytest
import torch

from hpcscale import selftest
from hpcscale.cluster import node
from hpcscale.inputs import pipeline
from hpcscale.ranks import horovod

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="says what is skipped without a GPU")


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_each_check_has_its_line(
    cuda: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checks themselves run in the image: tests/live."""
    names = ["imports", "extension", "decoding", "ranks", "nccl", "gpu_decoding", "gpu_ranks"]
    monkeypatch.setattr(node, "cuda_of_torch", lambda: cuda)
    for name in names:
        check = Mock(return_value="done", __name__=name)
        monkeypatch.setattr(selftest, name, check)
    selftest.main()
    said = [line.partition(": done (")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == (names if cuda else names[:4])


def test_the_decoder_that_is_named_is_the_one_that_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*arguments: object) -> None:
        raise AssertionError("DALI")

    monkeypatch.setattr(pipeline, "decoder", no)
    assert selftest.decoding().startswith("libjpeg-turbo, largest error ")


def test_what_needs_gpus_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest.gpu_decoding() == "skipped: no GPU is seen here"
    assert selftest.gpu_ranks() == "skipped: two ranks need two GPUs, and 0 are seen here"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert selftest.gpu_ranks() == "skipped: two ranks need two GPUs, and 1 are seen here"
    with pytest.raises((RuntimeError, AssertionError)):  # it is tried where torch sees one
        selftest.gpu_decoding()


def test_a_horovod_of_another_nccl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 29, 7))
    for found in (None, (2, 29, 3)):
        monkeypatch.setattr(horovod, "nccl", lambda found=found: found)
        with pytest.raises(AssertionError, match=r"compiled with NCCL .*, torch has loaded \(2, 29, 7\)"):
            selftest.nccl()
    monkeypatch.setattr(horovod, "nccl", lambda: (2, 29, 7))
    if not torch.version.cuda:
        with pytest.raises(AssertionError, match="not one NCCL is loaded, but none"):
            selftest.nccl()
