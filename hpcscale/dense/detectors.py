"""Detectors: torchvision's Faster R-CNN, Mask R-CNN, Keypoint R-CNN and RetinaNet on our networks.

In: [detector], [model], the categories of a data set. Out: a module that in training takes pictures and
targets and gives losses by name, and in evaluation gives boxes, labels, scores, and masks or key points.

What differs from torchvision's defaults: pictures are resized before (views.py), so its own transform only
normalises and pads; every number that a recipe has (tasks.Detector) is passed on; and the neck `conv4` of Sun
et al. 2017, section 4.3, which torchvision lacks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from hpcscale import config
from hpcscale.annotations.objects import most_points
from hpcscale.config import ConfigError
from hpcscale.data.manifest import Category
from hpcscale.dense import backbones, conv4, retinanet
from hpcscale.dense.ops import torchvision
from hpcscale.tasks import Detector
from hpcscale.view import Values

detection = torchvision.models.detection
DIVISOR = 32  # sides of a padded batch are multiples of it
POOLED, SAMPLES = 14, 1  # of conv4: bins of an RoI before the pooling, and samples a bin and axis


class Built(NamedTuple):
    model: nn.Module
    body: nn.Module  # which `model.init` starts; its names are the network's


def build(task: Detector, settings: config.Model, categories: Sequence[Category], values: Values) -> Built:
    """A detector with fresh weights from torch's global generator, on the CPU. Label 0 is the background, so
    category c has label c + 1. Raises ConfigError."""
    labels, points = len(categories) + 1, most_points(categories)
    if task.name == "keypoint_rcnn" and not points:
        raise ConfigError("detector.name: keypoint_rcnn, but no category of the data set has key points")
    if task.name == "retinanet":
        backbone = backbones.build(settings, "P3-P7", task.frozen)
        built = Built(retinanet.build(task, backbone, len(categories)), backbone.body)
    elif task.neck == "conv4":
        trunk = conv4.build(settings, task.frozen)
        parts = {
            "box_roi_pool": torchvision.ops.MultiScaleRoIAlign(["0"], POOLED, SAMPLES),
            "box_head": conv4.Head(trunk),
            "box_predictor": detection.faster_rcnn.FastRCNNPredictor(trunk.head_channels, labels),
        }
        built = Built(detection.FasterRCNN(trunk, **parts, **_rcnn(task)), trunk.body)
    else:
        backbone = backbones.build(settings, "P2-P6", task.frozen)
        kinds = {"faster_rcnn": detection.FasterRCNN, "mask_rcnn": detection.MaskRCNN}
        if task.name == "keypoint_rcnn":
            model = detection.KeypointRCNN(backbone, labels, num_keypoints=points, **_rcnn(task))
        else:
            model = kinds[task.name](backbone, labels, **_rcnn(task))
        built = Built(model, backbone.body)
    built.model.transform = Unresized(1, 1, *backbones.scaling(values), DIVISOR)
    return built


class Unresized(detection.transform.GeneralizedRCNNTransform):  # type: ignore[misc,name-defined]
    """torchvision's normalisation and padding, without its resizing."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, Any]:
        return image, target


def _rcnn(task: Detector) -> dict[str, Any]:
    """The arguments of torchvision's R-CNNs that a recipe decides."""
    sizes = (task.anchors,) if task.neck == "conv4" else tuple((size,) for size in task.anchors)
    anchors = detection.anchor_utils.AnchorGenerator(sizes, (task.ratios,) * len(sizes))
    return {
        "rpn_anchor_generator": anchors,
        "rpn_batch_size_per_image": task.rpn_batch,
        "rpn_positive_fraction": task.rpn_positive,
        "rpn_pre_nms_top_n_train": task.candidates[0],
        "rpn_pre_nms_top_n_test": task.candidates[1],
        "rpn_post_nms_top_n_train": task.proposals[0],
        "rpn_post_nms_top_n_test": task.proposals[1],
        "rpn_nms_thresh": task.rpn_nms,
        "box_batch_size_per_image": task.box_batch,
        "box_positive_fraction": task.box_positive,
        "box_score_thresh": task.score,
        "box_nms_thresh": task.nms,
        "box_detections_per_img": task.detections,
    }
