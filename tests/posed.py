"""Pictures of made-up persons, whose 17 key points are dots of 17 colours; a recipe that trains on them."""

import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hpcscale.evaluate import oks
from hpcscale.ingest.packing import Packing, ingest

PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = ["nose", *(f"{side}_{part}" for part in PAIRS for side in ("left", "right"))]
CATEGORIES = [
    {"id": 1, "name": "dog"},
    {"id": 18, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]},
]
HEIGHT, WIDTH, DOT = 120, 160, 5  # pixels; radius of a dot
BOXES = [[5.0, 10.0, 60.0, 95.0], [80.0, 15.0, 70.0, 90.0]]  # of the persons of a picture
RECIPE = """\
[data]
train = "{data}"
validation = "{data}"
[pose]
crop = [57, 41]
radius = 6
[model]
output_stride = 8
zero_init_residual = false
[optimizer]
name = "rmsprop"
epsilon = 1e-4
weight_decay = 0
[schedule]
lr = 0.01
[train]
steps = 4
batch = 4
threads = 1
log_every = 1
checkpoint_every = 2
device = "cpu"
"""


def colour(number: int) -> tuple[int, ...]:
    """Of a key point."""
    return tuple(round(255 * each) for each in colorsys.hsv_to_rgb(number / 17, 1, 1 - number % 2 / 3))


def points(random: np.random.Generator, box: list[float]) -> NDArray[np.float64]:
    """Key points (17, 3) of a person, in a box and not at its edge."""
    places = random.uniform(0.1, 0.9, (17, 2)) * box[2:] + box[:2]
    return np.column_stack([places.round(), np.full(17, 2)])


def row(
    number: int, image: int, pose: NDArray[np.float64], box: list[float], **change: Any
) -> dict[str, Any]:
    """A person as COCO has it."""
    return {"id": number, "image_id": image, "category_id": 18, "bbox": box, "area": box[2] * box[3],
            "iscrowd": 0, "segmentation": [], "num_keypoints": int((pose[:, 2] > 0).sum()),
            "keypoints": pose.ravel().tolist()} | change  # fmt: skip


def draw(file: Path, poses: list[NDArray[np.float64]]) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    pen = ImageDraw.Draw(image)
    for pose in poses:
        for number, (x, y, _) in enumerate(pose):
            pen.ellipse([x - DOT, y - DOT, x + DOT, y + DOT], fill=colour(number))
    image.save(file, quality=95, subsampling=0)


def pack(folder: Path, rows: list[dict[str, Any]], count: int) -> Path:
    """folder/pictures and these annotations, as a data set."""
    sizes = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": number, "file_name": f"{number}.jpg"} | sizes for number in range(count)]
    coco = folder / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": rows, "categories": CATEGORIES}))
    ingest(folder / "pictures", folder / "data", packing=Packing(None, annotations=(coco,)), workers=1)
    return folder / "data"


def make(folder: Path, count: int = 4) -> Path:
    """Pictures of one or two persons in turn, packed; returns a recipe."""
    (folder / "pictures").mkdir(parents=True)
    random, rows = np.random.default_rng(0), []
    for number in range(count):
        boxes = BOXES[: 1 + number % 2]
        poses = [points(random, box) for box in boxes]
        draw(folder / "pictures" / f"{number}.jpg", poses)
        rows += [row(len(rows) + n, number, poses[n], boxes[n]) for n in range(len(boxes))]
    recipe = folder / "pose.toml"
    recipe.write_text(RECIPE.format(data=pack(folder, rows, count)))
    return recipe


def likenesses(run: Path) -> list[float]:
    """Of each true person that has a visible key point with the most alike pose that an evaluation found."""
    (folder,) = (run / "evaluations").iterdir()
    truth, found = (json.loads((folder / name).read_text()) for name in ("truth.json", "found.json"))
    said = []
    for row in truth["annotations"]:
        if row.get("num_keypoints"):
            points, *poses = (
                np.array(each["keypoints"], np.float64).reshape(17, 3)
                for each in (row, *(each for each in found if each["image_id"] == row["image_id"]))
            )
            said.append(max((oks.similarity(points, each, row["area"]) for each in poses), default=0.0))
    return said
