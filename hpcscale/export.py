"""A trained network as one file for other programs: safetensors, or ONNX.

In: a run, or one of its checkpoints. Out: the file, which also says how pictures must be prepared and what
each output means. It gets its name only after it was run and its logits were those of the network.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpcscale import __version__, files
from hpcscale.config import ConfigError
from hpcscale.data import same
from hpcscale.files import Told, Usage
from hpcscale.models import checkpoint, networks
from hpcscale.models.networks import Trained
from hpcscale.models.preprocessing import preprocessing
from hpcscale.models.weights import SAID
from hpcscale.samples.chosen import open_vocabulary

PICTURES = 3  # that the exported file is tried on
# Most that logits of an ONNX file may differ, as a share of the largest: other programs add in other orders.
TOLERANCE = 1e-4
ONNX_MOST = 2_000_000_000  # bytes of weights: the format's limit for one file is 2 GiB
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class ExportError(Told):
    """A network that cannot be exported so; the message says why."""


def export(place: Path, out: Path) -> dict[str, Any]:
    """Write the network of a run folder's newest checkpoint, or of RUN/checkpoints/step-*.safetensors, to
    `out`, whose ending says the format; an existing file is never replaced.

    Returns what the file says of itself, `file`, and `difference`: the largest of the logits of PICTURES
    made-up pictures. Raises OutputError and Usage before any work is done; CheckpointError, ConfigError,
    VocabularyError, and ExportError where the file gives other logits.
    """
    writer = WRITERS.get(out.suffix)
    if writer is None:
        raise Usage(f"{out}: its ending says the format; allowed: {', '.join(WRITERS)}")
    run = checkpoint.run_of(place)
    files.check_output(out, [checkpoint.folder(run), run / "config.json"])
    if out.suffix == ".onnx" and (lacking := [name for name in NEEDED if not importlib.util.find_spec(name)]):
        raise Usage(f"{out}: ONNX needs {', '.join(lacking)}: pip install 'hpcscale[onnx]'")
    trained = networks.load(place)
    said = about(trained)
    model = trained.model.cpu()
    side = trained.input.crop
    pictures = torch.randn(PICTURES, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = model(pictures)
    with files.replacing(out) as aside:
        found = writer(trained, pictures, aside, json.dumps(said))
        difference = (found - wanted).abs().max().item()
        most = 0.0 if out.suffix == ".safetensors" else TOLERANCE * wanted.abs().max().item()
        if not difference <= most:
            raise ExportError(
                f"{out}: its logits differ by {difference:.2g} from those of the network, more than "
                f"{most:.2g}; nothing was written"
            )
        files.refuse_other(aside, out)  # which came while we worked
    return {"file": str(out), "difference": difference, **said}


def about(trained: Trained) -> dict[str, Any]:
    """What an exported file says of itself."""
    settings, found = trained.settings, trained.checkpoint
    classes = open_vocabulary(settings).classes
    digest = same.names(classes)
    if len(classes) != trained.model.classifier.out_features or found.metadata.get("names", digest) != digest:
        raise ConfigError(
            f"data.vocabulary: the classes of {settings.data.vocabulary} are not those that {found.file} was "
            "trained on"
        )
    return {
        "model": settings.model.name,
        "stride": settings.model.stride,
        "output_stride": settings.model.output_stride,
        # Checkpoints of early versions state none.
        "preprocessing": found.metadata.get("preprocessing") or preprocessing(settings, None),
        "step": found.step,
        "checkpoint_sha256": found.sha256,
        "hpcscale": __version__,
        "names": digest,
        "classes": list(classes),
    }


def _safetensors(trained: Trained, pictures: Tensor, file: Path, said: str) -> Tensor:
    """Write the file; its logits, of a network that is built anew and filled from it."""
    model = trained.model
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, file, {"format": "pt", SAID: said})
    again = networks.build(trained.settings.model, model.classifier.out_features).eval()
    checkpoint.restore(again.state_dict(), load_file(file), file)
    with torch.inference_mode():
        logits: Tensor = again(pictures)
    return logits


def _onnx(trained: Trained, pictures: Tensor, file: Path, said: str) -> Tensor:
    """Write the file; its logits, by ONNX Runtime. images (batch, 3, crop, crop) float32, as the network
    reads them -> logits (batch, classes)."""
    import onnxruntime

    size = sum(value.nbytes for value in trained.model.state_dict().values())
    if size > ONNX_MOST:
        raise ExportError(
            f"{size:,} bytes of weights are too many for one file of ONNX, which holds {ONNX_MOST:,}; export "
            "to .safetensors"
        )
    with _quiet():
        program = torch.onnx.export(
            trained.model,
            (pictures[:2],),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[SAID] = said
    program.save(file, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    if session.get_modelmeta().custom_metadata_map.get(SAID) != said:
        raise ExportError("ONNX Runtime does not give back what the file says of itself")
    return torch.from_numpy(session.run(["logits"], {"images": pictures.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of itself while it exports."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


WRITERS: dict[str, Callable[[Trained, Tensor, Path, str], Tensor]] = {
    ".safetensors": _safetensors,
    ".onnx": _onnx,
}
