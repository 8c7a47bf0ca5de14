"""RetinaNet as BiT was judged with: anchors, the focal loss, Huber's loss of boxes, labels."""

import math

import pytest
import thin
import torch
import torch.nn.functional as F
from small_detectors import SIDE, build, image, of_recipe, recipe, seen, target

from hpcscale.dense import retinanet
from hpcscale.dense.ops import torchvision
from hpcscale.tasks import Detector

BOXES = [[10.0, 20, 70, 90], [60, 30, 120, 110]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _thin():
    with thin.network():
        yield


@pytest.fixture(scope="module")
def task(_thin):
    return of_recipe("kolesnikov2020_retinanet")


def anchors_of(model, side):
    maps = [torch.zeros(1, 1, side >> level, side >> level) for level in range(3, 8)]
    images = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 1, side, side), [(side, side)])
    (found,) = model.anchor_generator(images, maps)
    return found


def test_row_53_number_of_anchors(task):
    """Nine a place of strides 8 to 128: as the published code counts them."""
    assert len(anchors_of(task.model, 640)) == 76_725
    assert len(anchors_of(task.model, 1024)) == 196_416


def test_row_53_sides_of_anchors_are_four_strides_in_three_octaves(task):
    found, start = anchors_of(task.model, 256), 0
    for level in range(3, 8):
        sizes = found[start : start + 9, 2:] - found[start : start + 9, :2]
        for row, (ratio, octave) in enumerate((r, o) for r in (0.5, 1, 2) for o in range(3)):
            side = 4 * 2**level * 2 ** (octave / 3)
            wanted = [side / ratio**0.5, side * ratio**0.5]
            assert sizes[row].tolist() == pytest.approx(wanted, abs=1)  # rounded
        start += 9 * (256 >> level) ** 2


def test_row_53_the_focal_loss_is_its_formula():
    """Equation 5: -alpha_t (1 - p_t)^gamma log(p_t)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator) * 4
    wanted = (torch.rand(200, 3, generator=generator) < 0.3).float()
    half = retinanet.focal(logits, wanted, Detector(alpha=0.5, gamma=0.0))
    torch.testing.assert_close(
        half, 0.5 * F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    )
    sure = torch.where(wanted > 0, logits.double().sigmoid(), 1 - logits.double().sigmoid())
    weights = torch.where(wanted > 0, 0.25, 0.75)
    formula = -(weights * (1 - sure) ** 2 * sure.log()).sum().float()
    torch.testing.assert_close(retinanet.focal(logits, wanted, Detector()), formula)
    torch.testing.assert_close(
        formula, torchvision.ops.sigmoid_focal_loss(logits, wanted, 0.25, 2.0, reduction="sum")
    )


def test_row_53_losses_of_boxes_are_hubers():
    found, wanted = torch.tensor([[0.05, -0.1, 0.3, 0.0]]), torch.zeros(1, 4)
    huber = 0.05**2 / 2 + 0.1**2 / 2 + 0.1 * (0.3 - 0.1 / 2)
    assert retinanet.differences(found, wanted, 0.1).item() == pytest.approx(huber)
    assert retinanet.differences(found, wanted, 0.0).item() == pytest.approx(0.45)


def test_row_53_alpha_gamma_and_weight_of_the_recipe_are_those_of_the_loss(task):
    found = {}
    for keys in ("alpha=0.25", "alpha=0.5", "gamma=0.0", "localisation=1.0", "huber=0.0"):
        losses = of_recipe("kolesnikov2020_retinanet", f"detector.{keys}").losses([seen(BOXES, [0, 1])], CPU)
        found[keys] = losses["classification"].item(), losses["bbox_regression"].item()
    classes, boxes = found["alpha=0.25"]
    assert found["alpha=0.5"][0] > 1.5 * classes
    assert found["gamma=0.0"][0] > 1.5 * classes
    assert found["localisation=1.0"] == (classes, pytest.approx(boxes / 12.5))
    assert found["huber=0.0"][0] == classes
    assert found["huber=0.0"][1] > 5 * boxes


def matches_of(model, boxes):
    overlaps = torchvision.ops.box_iou(torch.tensor(boxes), anchors_of(model, SIDE))
    return overlaps, model.proposal_matcher(overlaps)


def test_row_53_no_anchor_is_left_out_and_every_object_has_one(task):
    small = [*BOXES, [110.0, 2, 116, 8]]  # which overlaps no anchor by half
    overlaps, matched = matches_of(task.model, small)
    best = overlaps.max(0).values
    assert not (matched == -2).any()
    assert (matched[best >= 0.5] >= 0).all()
    assert overlaps[2].max() < 0.5
    assert set(matched.tolist()) == {-1, 0, 1, 2}
    assert (matches_of(build(name="retinanet", anchors=[32]), small)[1] == -2).any()  # Lin et al.: 0.4 to 0.5


@pytest.mark.parametrize("gamma", [2.0, 0.0])  # at 2, what is background costs next to nothing
def test_row_53_the_first_loss_is_that_of_the_prior(gamma):
    """Every output begins at a probability of 0.01 (Lin et al. 2017, section 3.3)."""
    task = of_recipe("kolesnikov2020_retinanet", f"detector.gamma={gamma}")
    losses = task.losses([seen(BOXES, [0, 1])], CPU)
    _, matched = matches_of(task.model, BOXES)
    objects, outputs = int((matched >= 0).sum()), 2 * len(matched)
    prior = 0.01
    wanted = objects * 0.25 * (1 - prior) ** gamma * -math.log(prior)
    wanted += (outputs - objects) * 0.75 * prior**gamma * -math.log(1 - prior)
    assert losses["classification"].item() == pytest.approx(wanted / objects, rel=0.02)


def test_row_53_perfect_predictions_cost_nothing_and_keep_their_labels(task):
    """Output c is category c, labels are from 1: there is no output for the background."""
    model, truth = task.model, target(BOXES, [2, 1])
    anchors, (_, matched) = anchors_of(model, SIDE), matches_of(model, BOXES)
    found = torch.where(matched >= 0)[0]
    logits = torch.full((1, len(anchors), 2), -30.0)
    logits[0, found, truth["labels"][matched[found]] - 1] = 30
    moves = torch.zeros(1, len(anchors), 4)
    moves[0, found] = model.box_coder.encode_single(truth["boxes"][matched[found]], anchors[found])
    outputs = {"cls_logits": logits, "bbox_regression": moves}
    losses = model.compute_loss([truth], outputs, [anchors])
    assert sum(losses.values()) < 1e-6
    levels = [9 * (SIDE >> level) ** 2 for level in range(3, 8)]
    parts = {name: list(value.split(levels, dim=1)) for name, value in outputs.items()}
    (said,) = model.postprocess_detections(parts, [list(anchors.split(levels))], [(SIDE, SIDE)])
    assert sorted(said["labels"].tolist()) == [1, 2]
    for label, box in ((2, BOXES[0]), (1, BOXES[1])):
        (row,) = torch.where(said["labels"] == label)[0]
        assert said["boxes"][row].tolist() == pytest.approx(box, abs=0.01)


def test_row_53_a_picture_without_objects_has_a_loss(task):
    model = of_recipe("kolesnikov2020_retinanet").model
    losses = model(
        [image()],
        [
            target([[1.0, 1, 2, 2]], [1])
            | {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        ],
    )
    sum(losses.values()).backward()
    assert losses["bbox_regression"] == 0
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert recipe("kolesnikov2020_retinanet").detector.frozen == 0
