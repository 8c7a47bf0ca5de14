"""A run judged on composed pictures (compose.py): accuracy over all, by class, by object and by background.

In: a run folder of classification, a folder of composed pictures, perhaps a mapping of classes. Out:
`RUN/robustness/NAME-STEP.json` (result.py). The pictures are packed as those that the run was trained on,
beside that file and for as long as it takes, and cut as in its evaluations. The classes that compete for the
five guesses are those of its newest evaluation: classes that a tag of the evaluated data selects. So a class
that is only an ancestor of others does not win.
"""

import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale.data import same
from hpcscale.data.manifest import DataError, digest
from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.sets import EvaluateError
from hpcscale.files import FileError, check_output, marked, read_bytes, write_file
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.inputs import pipeline
from hpcscale.inputs.mending import BadSample
from hpcscale.labels.vocabulary import Vocabulary, tag_classes
from hpcscale.models import complexity, networks
from hpcscale.models.networks import Trained
from hpcscale.models.places import NAME, run_of
from hpcscale.models.preprocessing import Normalized
from hpcscale.progress import Progress, none
from hpcscale.robustness import composition, mapping
from hpcscale.robustness.composition import Picture
from hpcscale.robustness.mapping import Mapped
from hpcscale.robustness.result import GUESSES, MARK, Class, InContext, Predicted, Result, dump, measured
from hpcscale.samples.chosen import open_vocabulary

RANDOM = "random"  # upstream of a run that began from nothing


class Options(NamedTuple):
    out: Path | None = None  # the file; None: RUN/robustness/NAME-STEP.json
    classes: Path | None = None  # a mapping (mapping.py)
    data: Path | None = None  # of the evaluation in context, whose tags say which classes compete, if moved
    upstream: str | None = None  # None: what `model.init` of the run is called
    batch: int = 32  # pictures at a time
    workers: int | None = None  # processes that pack the pictures; None: one a core


DEFAULT = Options()


class Guessed(NamedTuple):
    """Of n pictures, in the order of their data set."""

    classes: NDArray[np.int64]  # (n, g), best first
    probabilities: NDArray[np.float64]  # (n, g)


def evaluate(
    run: Path, folder: Path, options: Options = DEFAULT, progress: Progress = none
) -> tuple[Path, Result]:
    """Judge the newest checkpoint of a run, and write the file of the result.

    Raises FileError of mapping and pictures, CheckpointError, ConfigError, VocabularyError, DeviceError,
    DataError and EvaluateError; then no result is written.
    """
    pictures = composition.read(folder)
    trained = networks.load(run)
    step = trained.checkpoint.step
    out = options.out or run / "robustness" / f"{folder.resolve().name}-{step:08d}.json"
    check_output(out, [folder, options.classes], marked(MARK.encode()))
    labels = open_vocabulary(trained.settings)
    _refuse_others(trained, labels)
    mapped = mapping.read(options.classes, (one.of for one in pictures), labels)
    inside, evaluated = _in_context(run)
    candidates = _candidates(labels, options.data or evaluated or trained.settings.data.train, mapped)
    packed = out.with_name(out.name + ".parts")
    packing = Packing(resize=_stored(trained))
    ingest(folder, packed, packing=packing, workers=options.workers, progress=progress)
    try:
        data = open_data(packed)
        found = _matched(pictures, data, folder)
        guessed = predict(trained, data, candidates, options.batch, progress)
    finally:  # a kill leaves it, and the same call goes on
        shutil.rmtree(packed)
    result = Result(
        **_about(run, trained, len(labels.classes), options.upstream),
        in_context=inside,
        folder=str(folder),
        digest=digest(read_bytes(folder / composition.MANIFEST)).hex(),
        classes=tuple(
            Class(name=name, classes=one.names, relation=one.relation) for name, one in mapped.items()
        ),
        **measured(predictions(found, guessed, labels, mapped)),
    )
    write_file(out, dump(result).encode())
    return out, result


def predict(
    trained: Trained, data: DataSet, candidates: NDArray[np.int64], batch: int, progress: Progress = none
) -> Guessed:
    """The best of the candidates (c,) for each sample, and their probabilities: of a softmax over all
    classes, or of each class's own logistic, by the run's loss. Of equal ones the lower class comes first.
    Raises EvaluateError where a picture cannot be decoded or a score is not a number."""
    bad: list[BadSample] = []
    samples = np.arange(data.samples, dtype=np.int64)
    batches = pipeline.evaluate_batches(
        data, samples, trained.input, batch=batch, device=trained.device, tell=bad.append
    )
    normalized, among = Normalized(), torch.from_numpy(candidates)
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    with closing(batches), torch.inference_mode():
        for each in batches:
            logits = trained.model(normalized(each.images, each.values)).double().cpu()
            if not logits.isfinite().all():
                raise EvaluateError(f"{trained.checkpoint.file}: its scores are not numbers")
            scores = logits.softmax(1) if trained.settings.loss.name == "softmax" else logits.sigmoid()
            order = torch.sort(logits[:, among], dim=1, descending=True, stable=True).indices[:, :GUESSES]
            best = among[order]
            parts.append((best.numpy(), scores.gather(1, best).numpy()))
            progress("predict", int(each.samples[-1]) + 1, data.samples)
    if bad:
        raise EvaluateError(f"{bad[0].name}: {bad[0].reason}")
    return Guessed(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def predictions(
    pictures: list[Picture], guessed: Guessed, labels: Vocabulary, mapped: dict[str, Mapped]
) -> tuple[Predicted, ...]:
    """Of each picture, in the order of the guesses."""
    rows = zip(pictures, guessed.classes.tolist(), guessed.probabilities.tolist(), strict=True)
    return tuple(
        Predicted(
            image=picture.image,
            of=picture.of,
            foreground=picture.foreground,
            background=picture.background,
            guesses=tuple(labels.classes[c] for c in classes),
            probabilities=tuple(probabilities),
            right=tuple(c in mapped[picture.of].right for c in classes),
        )
        for picture, classes, probabilities in rows
    )


def _refuse_others(trained: Trained, labels: Vocabulary) -> None:
    """Raises EvaluateError where the network's outputs are not these classes. Older checkpoints do not name
    theirs; then their number must fit."""
    now = same.names(labels.classes)
    fits = trained.model.classifier.out_features == len(labels.classes)
    if not fits or trained.checkpoint.metadata.get("names", now) != now:
        raise EvaluateError(f"data.vocabulary: not the classes that {trained.checkpoint.file} was trained on")


def _stored(trained: Trained) -> int | None:
    """The side that pictures must be stored at for this run; None: as large as they are."""
    if trained.input.resize is not None:
        return None
    stated = trained.checkpoint.metadata.get("preprocessing", {}).get("size")
    if stated is None:
        raise EvaluateError(f"{trained.checkpoint.file}: does not say at which size pictures were stored")
    return int(stated)


def _matched(pictures: list[Picture], data: DataSet, folder: Path) -> list[Picture]:
    """The pictures in the order of the data set. Raises FileError where one has none, or is another than was
    composed."""
    by_name, samples = {one.image: one for one in pictures}, np.arange(data.samples, dtype=np.int64)
    found = [by_name[name] for name in data.names(samples)]
    for one, stored in zip(found, data.source_digests(samples), strict=True):
        if stored.tobytes().hex() != one.digest:
            raise FileError(f"{folder / one.image}: has changed since it was composed")
    if missing := by_name.keys() - {one.image for one in found}:
        raise FileError(f"{folder / min(missing)}: cannot be read; {len(missing)} such pictures")
    return found


def _about(run: Path, trained: Trained, classes: int, upstream: str | None) -> dict[str, object]:
    """What a Result says of the run."""
    settings = trained.settings
    if upstream is None:
        init = settings.model.init
        upstream = RANDOM if init is None else _name(init)
    return {
        "run": run.resolve().name,
        "step": trained.checkpoint.step,
        "checkpoint": trained.checkpoint.sha256,
        "architecture": settings.model.name,
        "parameters": complexity.parameters(settings.model, classes),
        "upstream": upstream,
    }


def _name(place: Path) -> str:
    """Of a run folder, one of its checkpoints, or a file of weights."""
    if NAME.fullmatch(place.name):
        place = run_of(place)
    return place.stem if place.is_file() else place.resolve().name


def _in_context(run: Path) -> tuple[InContext | None, Path | None]:
    """The newest evaluation, and where its data was."""
    if not any(run.glob("evaluations/*-*")):
        return None, None
    which, step, folder = evaluations.find(run)
    found = evaluations.read_summary(folder)
    top1, top5 = (found.metrics.get(key) for key in ("top1", "top5"))
    return InContext(set=which, step=step, top1=top1, top5=top5), Path(found.data) if found.data else None


def _candidates(labels: Vocabulary, place: Path, mapped: dict[str, Mapped]) -> NDArray[np.int64]:
    """The classes that tags of a data set select, rising. Raises EvaluateError where it is not there, and
    where none of them would be right for some objects."""
    try:
        data = open_data(place)
    except DataError as error:
        raise EvaluateError(f"{error}; its tags say which classes compete; --data says where it is") from None
    selected = tag_classes(labels, data.tags)
    candidates = np.unique(selected[selected >= 0]).astype(np.int64)
    for name, one in mapped.items():
        if one.right.isdisjoint(candidates.tolist()):
            raise EvaluateError(
                f"{name!r:.80}: {', '.join(one.names)} is never predicted: no tag of {place} selects "
                "it or a class below it"
            )
    return candidates
