"""Losses against closed forms and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from hpcscale.train.loss import LOSSES, logistic, softmax

torch.manual_seed(0)
LOGITS = torch.randn(5, 7)
LABELS = [[0], [1, 2], [3, 4, 5, 6], [2], [0, 6]]


def rows(kind: str) -> torch.Tensor:
    targets = torch.zeros(len(LABELS), 7)
    for row, classes in enumerate(LABELS):
        targets[row, classes] = 1.0 if kind == "logistic" else 1.0 / len(classes)
    return targets


def gradient(name: str) -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    LOSSES[name](logits, rows(name)).backward()
    assert logits.grad is not None
    return logits.grad


def test_row_17_gradient_of_logistic_is_probability_minus_target() -> None:
    torch.testing.assert_close(gradient("logistic"), LOGITS.sigmoid() - rows("logistic"))


def test_row_18_gradient_of_softmax_is_probability_minus_target_and_sums_to_zero() -> None:
    torch.testing.assert_close(gradient("softmax"), LOGITS.softmax(1) - rows("softmax"))
    torch.testing.assert_close(gradient("softmax").sum(1), torch.zeros(5), atol=1e-6, rtol=0)


def test_row_18_softmax_of_one_label_is_cross_entropy() -> None:
    classes = torch.tensor([3, 0, 6, 6, 1])
    wanted = F.cross_entropy(LOGITS, classes, reduction="sum")
    torch.testing.assert_close(softmax(LOGITS, F.one_hot(classes, 7).float()), wanted)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_row_18_least_softmax_loss_is_log_k(k: int) -> None:
    targets = torch.zeros(1, 7)
    targets[0, :k] = 1 / k
    logits = torch.full((1, 7), -100.0)
    logits[0, :k] = 100.0
    assert softmax(logits, targets).item() == pytest.approx(math.log(k), abs=1e-5)


def test_row_17_logistic_sums_over_classes_and_samples() -> None:
    targets = rows("logistic")
    wanted = -(targets * F.logsigmoid(LOGITS) + (1 - targets) * F.logsigmoid(-LOGITS)).sum()
    torch.testing.assert_close(logistic(LOGITS, targets), wanted)


def test_sums_of_parts_are_the_sum() -> None:
    """What lets ranks add up."""
    for name, loss in LOSSES.items():
        parts = loss(LOGITS[:2], rows(name)[:2]) + loss(LOGITS[2:], rows(name)[2:])
        torch.testing.assert_close(parts, loss(LOGITS, rows(name)))


def test_sample_without_class_adds_nothing_to_softmax() -> None:
    logits = LOGITS.clone().requires_grad_()
    targets = rows("softmax")
    targets[1] = 0
    softmax(logits, targets).backward()
    assert torch.all(logits.grad[1] == 0)
    kept = [0, 2, 3, 4]
    torch.testing.assert_close(softmax(LOGITS, targets), softmax(LOGITS[kept], targets[kept]))


def test_row_17_sample_without_class_is_negative_for_all_in_logistic() -> None:
    assert logistic(torch.zeros(1, 7), torch.zeros(1, 7)).item() == pytest.approx(7 * math.log(2))


@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_logits_are_computed_in_float32(name: str) -> None:
    logits = (LOGITS * 30).bfloat16()
    loss = LOSSES[name](logits, rows(name))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LOSSES[name](logits.float(), rows(name)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "targets", [torch.zeros(5, dtype=torch.int64), torch.zeros(5, 1), torch.zeros(5, 7).long()]
)
def test_other_targets_are_refused(name: str, targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 7\), found"):
        LOSSES[name](LOGITS, targets)
