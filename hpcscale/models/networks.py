"""The networks by name, and the only way to load a trained one. To add a network, add a file here and a line
in MODELS.

In: `[model]` of a recipe, or a run folder. Out: a network with new weights; or a trained one with its
checkpoint, its device and the preprocessing that it needs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcscale import config, ranks, sections
from hpcscale.config import Config, Input
from hpcscale.models import bit, checkpoint, device, resnet
from hpcscale.models.backbone import Network
from hpcscale.models.checkpoint import Checkpoint, CheckpointError
from hpcscale.models.preprocessing import refuse_other
from hpcscale.models.shapes import SHAPES

BIAS = "fc.bias"  # of the classifier of every network here
# Builders take the section [model] and the number of outputs; names are those that `config.Model` allows.
MODELS: dict[str, Callable[[config.Model, int], Network]] = {
    name: bit.build if shape.preactivated else resnet.build for name, shape in SHAPES.items()
}


class Trained(NamedTuple):
    """A network as a run has left it, the same on all ranks."""

    model: Network  # evaluating, on the device
    settings: Config  # of its run
    input: Input  # how pictures are cut for it
    device: torch.device
    checkpoint: Checkpoint


def build(settings: config.Model, outputs: int) -> Network:
    """A network with fresh weights from torch's global generator, on the CPU."""
    if outputs < 1:
        raise ValueError(f"a classifier needs at least one class, found {outputs}")
    return MODELS[settings.name](settings, outputs)


def load(place: Path) -> Trained:
    """The network of a run folder's newest checkpoint, or of RUN/checkpoints/step-*.safetensors (collective).

    Rank 0 chooses configuration and checkpoint and reads them for all: while a training still runs, other
    ranks might find newer ones. The network is put on the run's `train.device`. Raises CheckpointError,
    ConfigError (also where the checkpoint was trained with other preprocessing than the run's config.json
    says) and DeviceError.
    """
    tensors: dict[str, Tensor] = {}
    stated = None
    if ranks.rank() == 0:
        values = config.read(checkpoint.run_of(place) / "config.json").model_dump(mode="json")
        found = checkpoint.find(place)
        tensors = checkpoint.load(found)[0]
        if BIAS not in tensors:
            raise CheckpointError(f"{found.file}: holds no model.{BIAS}")
        stated = [values, len(tensors[BIAS]), found.step, str(found.file), found.metadata, found.sha256]
    values, outputs, step, file, metadata, sha256 = ranks.broadcast_object(stated)
    settings = sections.check(Config, values, "configuration of rank 0")
    refuse_other(metadata, settings, Path(file))
    here = device.choose(settings.train.device)
    model = build(settings.model, outputs)
    if tensors:
        checkpoint.restore(model.state_dict(), tensors, Path(file))
    model.to(here).eval()
    ranks.broadcast(model.state_dict().values())
    return Trained(
        model, settings, config.seen(settings), here, Checkpoint(step, Path(file), metadata, sha256)
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, the network evaluates; after, every part of it is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
