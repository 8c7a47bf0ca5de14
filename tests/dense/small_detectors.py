"""Detectors over a thin ResNet-50, also with a recipe's numbers, and scenes that they train on."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hpcscale import config, tasks
from hpcscale.annotations.objects import Objects
from hpcscale.data.manifest import AnnotationTable, Category
from hpcscale.dense import detection, detectors, training
from hpcscale.dense.batches import Seen
from hpcscale.dense.views import whole_view

POINTS = [f"point {number}" for number in range(17)]
CATEGORIES = [Category(name="dog", id=1), Category(name="person", id=2, keypoints=POINTS)]
TABLE = AnnotationTable(sources=["coco"], categories=CATEGORIES, values=[], lost=0, lost_digest="")
SIDE = 128  # pixels of a scene


def build(**keys):
    """A detector with nothing frozen, unless it is said."""
    torch.manual_seed(0)
    model = config.Model(zero_init_residual=False)
    return detectors.build(tasks.Detector(**{"frozen": 0} | keys), model, CATEGORIES, "imagenet").model


def recipe(name, *sets):
    found = tasks.load(Path(f"{name}.toml"), sets)
    assert isinstance(found, tasks.Dense)
    return found


def of_recipe(name, *sets):
    """What training.py makes of a recipe, on a thin network and two categories."""
    torch.manual_seed(0)
    settings = recipe(name, "model.name=resnet50", "model.zero_init_residual=false", *sets)
    return training.Task(*detection.build(settings, settings.detector, TABLE))


def target(boxes, labels, side=SIDE):
    """Objects whose masks are their boxes, and whose key points are all in the middle."""
    corners = torch.tensor(boxes, dtype=torch.float32)
    masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, corners.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    middles = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, torch.full((len(boxes), 1), 2.0)], dim=1)
    points = middles[:, None].repeat(1, len(POINTS), 1)
    return {"boxes": corners, "labels": torch.tensor(labels), "masks": masks, "keypoints": points}


def image(side=SIDE):
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))


def seen(boxes, classes, side=SIDE):
    """The same as a picture that comes to training.py."""
    found = target(boxes, classes, side)
    count = len(boxes)
    objects = Objects(
        (side, side), True, found["boxes"].numpy(), np.array(classes), np.zeros(count, np.int64),
        np.arange(count), np.full(count, np.nan), [None] * count, found["keypoints"].numpy(),
    )  # fmt: skip
    pixels = (image(side).permute(1, 2, 0) * 255).byte().numpy()
    view = whole_view((side, side), tasks.View(shorter=side, longer=side))
    return Seen(0, pixels, view, (side, side), objects, found["masks"].numpy(), None)


@contextmanager
def recorded(module: torch.nn.Module, shapes: Callable):
    """Within, a list grows by shapes(inputs, output) of every call of a module."""
    found: list = []
    hook = module.register_forward_hook(lambda _, given, output: found.append(shapes(given, output)))
    try:
        yield found
    finally:
        hook.remove()
