"""Where a network runs, and in which precision: `train.device` and `train.precision` of a recipe, chosen
once for training, evaluation and embeddings alike."""

import torch

from hpcscale import ranks
from hpcscale.files import Told


class DeviceError(Told):
    """The device that was asked for is not here."""


def choose(wanted: str) -> torch.device:
    """The device of this rank; `wanted` is auto, cpu or cuda. A GPU becomes the current one.

    Raises DeviceError where a GPU is wanted and there is none, SlurmError where there are too few for the
    ranks of this node.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not visible:
        raise DeviceError("train.device is 'cuda', but torch finds no GPU; allowed here: auto, cpu")
    if wanted == "cpu" or not visible:
        return torch.device("cpu")
    device = torch.device("cuda", ranks.device_index(visible))
    torch.cuda.set_device(device)
    return device


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def precision(wanted: str, device: torch.device) -> torch.autocast:
    """A context in which a network computes in `wanted`, one of DTYPES; its weights stay float32."""
    dtype = DTYPES[wanted]
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else torch.bfloat16, half)
