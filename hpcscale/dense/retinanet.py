"""RetinaNet (Lin et al. 2017, "Focal loss for dense object detection") with the losses that a recipe states.

In: levels P3 to P7 and [detector]. Out: torchvision's RetinaNet. Its losses have fixed numbers, and its
classifier an output for the background, which no loss of sigmoids needs: here output c is category c.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcscale.dense.ops import torchvision
from hpcscale.tasks import Detector

detection = torchvision.models.detection
OCTAVES = 3  # anchors a level and shape, each 2^(1/3) times the one before
LEVELS = 5


class Head(detection.retinanet.RetinaNetHead):  # type: ignore[misc,name-defined]
    """torchvision's two stacks of convolutions, with losses by `task`."""

    def __init__(self, channels: int, anchors: int, categories: int, task: Detector) -> None:
        super().__init__(channels, anchors, categories)
        self.task = task

    def compute_loss(
        self,
        targets: Sequence[Mapping[str, Tensor]],
        head_outputs: Mapping[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Means over pictures of sums over anchors, divided by the number of those that are objects. An
        anchor is matched to a row of its target, to -1 for background, or to -2, and left out."""
        classes, boxes, coder = [], [], self.regression_head.box_coder
        outputs = head_outputs["cls_logits"].float(), head_outputs["bbox_regression"].float()
        for target, logits, deltas, places, rows in zip(
            targets, *outputs, anchors, matched_idxs, strict=True
        ):
            found = torch.where(rows >= 0)[0]
            wanted = torch.zeros_like(logits)
            wanted[found, target["labels"][rows[found]] - 1] = 1
            count, kept = max(1, len(found)), rows != self.classification_head.BETWEEN_THRESHOLDS
            classes.append(focal(logits[kept], wanted[kept], self.task) / count)
            moves = coder.encode_single(target["boxes"][rows[found]], places[found])
            boxes.append(differences(deltas[found], moves, self.task.huber) / count)
        return {"classification": torch.stack(classes).mean(), "bbox_regression": torch.stack(boxes).mean()}


def focal(logits: Tensor, wanted: Tensor, task: Detector) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log(p_t), summed (equation 5)."""
    loss: Tensor = torchvision.ops.sigmoid_focal_loss(logits, wanted, task.alpha, task.gamma, "sum")
    return loss


def differences(found: Tensor, wanted: Tensor, huber: float) -> Tensor:
    """Summed absolute differences, or Huber's."""
    if not huber:
        return F.l1_loss(found, wanted, reduction="sum")
    return F.huber_loss(found, wanted, reduction="sum", delta=huber)


class RetinaNet(detection.RetinaNet):  # type: ignore[misc,name-defined]
    """torchvision's, whose labels are from 1 on, as those of its other detectors."""

    def postprocess_detections(self, *given: Any) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = super().postprocess_detections(*given)
        return [one | {"labels": one["labels"] + 1} for one in found]


def build(task: Detector, backbone: nn.Module, categories: int) -> RetinaNet:
    """Sides of anchors: those of the recipe times 2^(0, 1/3, 2/3) on P3, doubled on every next level."""
    sides = [side * 2 ** (place / OCTAVES) for side in task.anchors for place in range(OCTAVES)]
    generator = detection.anchor_utils.AnchorGenerator(
        tuple(tuple(side * 2**level for side in sides) for level in range(LEVELS)), (task.ratios,) * LEVELS
    )
    channels: Any = backbone.out_channels
    return RetinaNet(
        backbone,
        categories,
        anchor_generator=generator,
        head=Head(channels, generator.num_anchors_per_location()[0], categories, task),
        score_thresh=task.score,
        nms_thresh=task.nms,
        detections_per_img=task.detections,
        bg_iou_thresh=task.match[0],
        fg_iou_thresh=task.match[1],
        topk_candidates=task.candidates[1],
    )
