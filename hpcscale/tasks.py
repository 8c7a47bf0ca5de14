"""The configuration of a dense task: boxes, masks, key points, classes of pixels, pose.

One section says which task a recipe is of: [detector], [segmenter] or [pose]; a recipe with none is of
classification (config.py). In: TOML and overrides. Out: a Dense, or a Config. Imports no torch, as a login
node must read it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from hpcscale import config, files, sections
from hpcscale.config import Config, Training
from hpcscale.sections import MAY_CHANGE, Place, Section
from hpcscale.view import SIDE, Pair, Values

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Side = Annotated[int, Field(ge=1, le=SIDE)]
# In training, and in evaluation.
Both = Annotated[tuple[Count, Count], Strict(False)]


class Data(Section):
    # Folder written by `hpcscale data ingest --annotations`.
    train: Annotated[Place, MAY_CHANGE]
    # Another one to evaluate on, of the same classes; without it nothing is evaluated.
    validation: Annotated[Place | None, MAY_CHANGE] = None
    # Training pictures without any object, or without a class map.
    empty: Literal["drop", "keep"] = "drop"
    # Of a detector: batches that are filled by height / width of the pictures together, so that less of a
    # batch is padding. 1: pictures come as they are drawn, so that a batch may have wide and tall ones.
    grouped: int = Field(1, ge=1, le=10_000)


class View(Section):
    # Pictures are resized so that the shorter side is `shorter`, or less where the longer side would be above
    # `longer`; pixels.
    shorter: Side = 800
    longer: Side = 1333
    # In training the length is multiplied by a factor from this range, uniform.
    jitter: Pair = (1.0, 1.0)
    # In training, a random window of at most so many pixels a side, padded to it at the right and below.
    # None: the whole picture.
    window: Side | None = None
    # Squeeze the picture to a square of this side, whatever its shape, instead of all this.
    square: Side | None = None
    # How a picture is judged then: squeezed too, or with its longer side as long and its shape kept. Results
    # are compared at the size of the picture in either case.
    judged: Literal["squeezed", "aspect"] = "squeezed"
    # Mirror half of the training pictures.
    mirror: bool = True
    # What the model reads of channels, as [input] of a classification says; that of `model.init`, if any.
    values: Values = "imagenet"
    # Batches that are prepared ahead of the model.
    prefetch: Annotated[int, MAY_CHANGE] = Field(2, ge=1, le=1024)

    @model_validator(mode="after")
    def consistent(self) -> "View":
        if self.shorter > self.longer:
            raise ValueError(f"'shorter' is {self.shorter}, above 'longer', {self.longer}")
        if self.jitter[0] > self.jitter[1]:
            raise ValueError(f"'jitter' is the least and the largest factor, found {self.jitter}")
        if self.square and (self.window or self.jitter != (1.0, 1.0)):
            raise ValueError("'square' goes without 'window' and 'jitter'")
        return self


class Detector(Section):
    # faster_rcnn: Ren et al. 2015; mask_rcnn, keypoint_rcnn: He et al. 2017; retinanet: Lin et al. 2017.
    name: Literal["faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet"] = "faster_rcnn"
    # What boxes are found on. fpn: a feature pyramid; conv4: the third stage alone, the last stage reads the
    # RoIs (Sun et al. 2017, section 4.3; faster_rcnn only).
    neck: Literal["fpn", "conv4"] = "fpn"
    # What is not trained: 0 nothing, 1 the root, 2 the first stage too (Detectron's FREEZE_AT), up to 5.
    # Batch normalisations keep the averages and weights that they have in any case.
    frozen: int = Field(2, ge=0, le=5)
    # Sides of square anchors, pixels: of a pyramid one a level; each of them on every place of conv4.
    # retinanet: sides of level P3, doubled on each next.
    anchors: Annotated[tuple[float, ...], Strict(False), Field(min_length=1)] = (32, 64, 128, 256, 512)
    # Their height / width.
    ratios: Annotated[tuple[float, ...], Strict(False), Field(min_length=1)] = (0.5, 1.0, 2.0)
    # Anchors that a picture trains the proposals with, and the share of them that are objects.
    rpn_batch: Count = 256
    rpn_positive: Share = 0.5
    # Proposals by score before, and after, suppression above an overlap.
    candidates: Both = (2000, 1000)
    proposals: Both = (2000, 1000)
    rpn_nms: Share = 0.7
    # Proposals that a picture trains the boxes with, and the share of them that are objects.
    box_batch: Count = 512
    box_positive: Share = 0.25
    # Of detections: the least score, the overlap above which one of a class suppresses another, how many.
    score: Share = 0.05
    nms: Share = 0.5
    detections: Count = 100
    # How much losses of boxes count beside those of classes, proposals' too.
    localisation: float = Field(1.0, ge=0.0)
    # Of retinanet: overlaps below which an anchor is background, and from which it is an object.
    match: Annotated[tuple[Share, Share], Strict(False)] = (0.4, 0.5)
    alpha: Share = 0.25
    gamma: float = Field(2.0, ge=0.0)
    # Differences of boxes below which their loss is d^2 / 2 (Huber 1964), and linear above; 0: it is |d|.
    huber: float = Field(0.0, ge=0.0)

    @model_validator(mode="after")
    def consistent(self) -> "Detector":
        if self.neck == "conv4" and self.name != "faster_rcnn":
            raise ValueError(f"neck 'conv4' is of faster_rcnn, found {self.name}")
        if self.neck == "fpn" and self.name != "retinanet" and len(self.anchors) != 5:
            raise ValueError(f"'anchors' has a side for each of five levels, found {len(self.anchors)}")
        return self


class Segmenter(Section):
    # DeepLab with atrous spatial pyramid pooling, "large" (Chen et al. 2018; Sun et al. 2017, section 5.3):
    # branches of 3x3 convolutions with these rates, whose logits are summed.
    name: Literal["deeplab"] = "deeplab"
    rates: Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)] = (6, 12, 18, 24)
    # Classes of pixels 0, 1, ... of the maps; 255 is left out.
    classes: int = Field(21, ge=2, le=255)


class Pose(Section):
    # Heat maps and offsets of a person's key points, found one person at a time (Papandreou et al. 2017,
    # "G-RMI"; Sun et al. 2017, section 5.4). A sample is a person.
    name: Literal["g_rmi"] = "g_rmi"
    # Height and width of what the network sees of a person, pixels, each a multiple of 8 and 1 more, so that
    # maps of stride 8 have a place at every 8th pixel from the first to the last.
    crop: Annotated[tuple[Side, Side], Strict(False)] = (353, 257)
    # A person's box, extended to the shape of a crop, is enlarged by a factor from this range, uniform; in
    # evaluation by the other.
    jitter: Pair = (1.0, 1.5)
    enlargement: float = Field(1.25, gt=0.0)
    # Of the disks around key points, pixels of a crop.
    radius: float = Field(25.0, gt=0.0)
    # Weights of the losses: of heat maps, of offsets, and of heat maps after the third stage (0: none).
    heatmaps: float = Field(4.0, ge=0.0)
    offsets: float = Field(1.0, ge=0.0)
    intermediate: float = Field(4.0, ge=0.0)
    # Boxes of persons to evaluate with, instead of the true ones: records in the format of COCO's server,
    # such as the `found.json` of a detector's evaluation on `data.validation`. Of two that overlap by more
    # than `nms`, the one of the lower score is left out.
    boxes: Annotated[Place | None, MAY_CHANGE] = None
    nms: Share = 0.6
    # Of two poses of a picture whose likeness (OKS) is above it, the one of the lower score is left out.
    oks: Share = 0.5

    @model_validator(mode="after")
    def consistent(self) -> "Pose":
        if any(side % 8 != 1 for side in self.crop):
            raise ValueError(f"'crop' has sides of 8 n + 1 pixels, found {list(self.crop)}")
        if self.jitter[0] > self.jitter[1]:
            raise ValueError(f"'jitter' is the least and the largest factor, found {self.jitter}")
        return self


class Dense(Training):
    """Of a dense task."""

    data: Data
    input: View = View()
    detector: Detector | None = None
    segmenter: Segmenter | None = None
    pose: Pose | None = None

    @model_validator(mode="after")
    def one_task(self) -> "Dense":
        there = [name for name in TASKS if getattr(self, name) is not None]
        if len(there) != 1:
            raise ValueError(f"one section of {', '.join(TASKS)} says the task, found {there or 'none'}")
        if self.model.slices != "none":
            raise ValueError("model.slices: a dense task has no classifier to divide")
        if self.data.grouped > 1 and not self.detector:
            raise ValueError("data.grouped: is of a detector; other tasks see pictures of one shape")
        if self.segmenter and not self.input.square:
            raise ValueError("input.square: missing; a segmenter trains on squares")
        if self.pose:
            self._check_pose(self.pose)
        return self

    def _check_pose(self, pose: Pose) -> None:
        if self.model.output_stride != 8:
            raise ValueError(f"model.output_stride: found {self.model.output_stride}; a pose needs 8")
        plain = View()
        for key in ("shorter", "longer", "jitter", "window", "square", "judged"):
            if getattr(self.input, key) != getattr(plain, key):
                raise ValueError(f"input.{key}: a pose is of persons, who are cut out as [pose] says")
        if self.data.empty != "drop":
            raise ValueError("data.empty: a pose trains on persons; pictures without any have none")
        if pose.boxes and not self.data.validation:
            raise ValueError("pose.boxes: needs data.validation, whose persons they are of")


TASKS = ("detector", "segmenter", "pose")


def load(file: Path, overrides: Iterable[str] = ()) -> Config | Dense:
    """`config.load`, whatever the task."""
    return load_from(file, overrides)[0]


def load_from(file: Path, overrides: Iterable[str] = ()) -> tuple[Config | Dense, list[Path]]:
    """`config.load_from`, whatever the task. Raises ConfigError."""
    found, overrides = sections.find(file, config.RECIPES), list(overrides)
    values: dict[str, Any] = sections.read_toml(found)
    for override in overrides:
        sections.override_into(values, override)
    if not is_dense(values):
        return config.load_from(file, overrides)
    return sections.check(Dense, values, str(file)), [file] if found == file else []


def read(file: Path) -> Config | Dense:
    """The resolved JSON of a run folder, whatever its task. Raises ConfigError."""
    try:
        values = files.read_json(file, sections.MOST)
    except (OSError, files.FileError):
        values = None  # `config.read` tells
    return config.read_as(file, Dense) if is_dense(values) else config.read(file)


def is_dense(values: Any) -> bool:
    return isinstance(values, dict) and any(values.get(name) is not None for name in TASKS)
