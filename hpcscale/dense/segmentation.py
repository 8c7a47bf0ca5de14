"""Classes of pixels: the task of training.py for [segmenter].

In: pictures with class maps, through views. Out: softmax cross-entropy on maps at the stride of the logits
(the nearest value of the class map; 255 is left out); a confusion matrix for each picture, with the class map
as it was packed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hpcscale import tasks
from hpcscale.annotations.masks import resize_nearest
from hpcscale.dense import deeplab
from hpcscale.dense.batches import Seen, Wanted
from hpcscale.dense.findings import MAP, png
from hpcscale.evaluate import miou
from hpcscale.models.preprocessing import Normalized


def build(settings: tasks.Dense, task: tasks.Segmenter) -> tuple[Any, ...]:
    """The fields of a training.Task. Raises ConfigError."""
    model = deeplab.build(task, settings.model)
    normalized, values = Normalized(), settings.input.values

    def logits(seen: list[Seen], device: torch.device) -> Tensor:
        pixels = torch.from_numpy(np.stack([one.pixels for one in seen])).to(device).permute(0, 3, 1, 2)
        found: Tensor = model(normalized(pixels, values))
        return found

    def losses(seen: list[Seen], device: torch.device) -> Mapping[str, Tensor]:
        found = logits(seen, device)
        size = (found.shape[2], found.shape[3])
        maps = np.stack([resize_nearest(one.class_map, size) for one in seen if one.class_map is not None])
        truth = torch.from_numpy(maps).to(device).long()
        return {"softmax": F.cross_entropy(found, truth, ignore_index=miou.IGNORE)}

    def find(seen: Seen, device: torch.device) -> list[dict[str, Any]]:
        if seen.class_map is None:
            return []
        size = seen.class_map.shape
        whole = F.interpolate(logits([seen], device), size, mode="bilinear", align_corners=False)
        classes = whole[0].argmax(0).byte().cpu().numpy()
        matrix = miou.count(seen.class_map, classes)
        true, predicted = np.nonzero(matrix)
        cells = np.stack([true, predicted, matrix[true, predicted]], axis=1)
        return [{"image_id": seen.sample, "confusion": cells.tolist(), MAP: png(classes)}]

    return model, model.body, Wanted(class_map=True), losses, find, "segmentation"
