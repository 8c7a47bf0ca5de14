"""The nineteen tasks of VTAB, as a table: what is predicted, how many samples, what is switched off.

In: nothing. Out: `TASKS`, which `hpcscale transfer tasks` prints. Sources of the columns:

group              assumed, of Zhai et al. 2019 (VTAB), which was not read again. The group means that BiT
                   printed agree with it: 7 x 80.77 + 4 x 85.67 + 8 x 61.08 = 19 x 73.51.
classes, sizes     what the tests of google-research/task_adaptation expect, but for KITTI (see its note).
label              the same repository's readers; bins.py computes those that are binned.
flip, crop         Kolesnikov et al. 2020 (BiT), supplement, section E.
folder             what the folders of vpt and NOAH are called.

The sizes are of the whole tasks. VTAB-1k trains on 800 and validates on 200 of them, then trains on 1,000;
the test set stays whole.
"""

from typing import Any, Literal, NamedTuple

from hpcscale.files import Usage

Group = Literal["natural", "specialised", "structured"]
GROUPS: tuple[Group, ...] = ("natural", "specialised", "structured")
SOURCES = {
    "group": "assumed: Zhai et al. 2019 (VTAB), not read again",
    "sizes": "google-research/task_adaptation, data/*_test.py",
    "label": "google-research/task_adaptation, data/*.py and scripts/run_all_tasks.sh",
    "augmentation": "Kolesnikov et al. 2020 (BiT), supplement, section E",
    "folder": "vpt and NOAH",
}


class Task(NamedTuple):
    """One task; numbers are of classes and of samples."""

    name: str
    group: Group
    folder: str
    classes: int
    train: int
    val: int
    test: int
    label: str  # what is predicted, and how it is binned
    flip: bool = True  # whether training may mirror pictures
    crop: bool = True  # whether training may crop them
    note: str = ""

    @property
    def off(self) -> tuple[str, ...]:
        """The augmentations that are switched off: "flip", "crop"."""
        return ("flip",) * (not self.flip) + ("crop",) * (not self.crop)


NATURAL, SPECIALISED, STRUCTURED = GROUPS
LATE = "val is the first half of the published test set, and test the second"
KITTI = (
    "sizes as TensorFlow Datasets divides the 7,481 pictures; the tests of task_adaptation expect 5,077, 634 "
    "and 634, which are of the 6,347 alone"
)
COUNT = "number of objects less 3, from 3 to 10"
NEAREST = "distance of the nearest object: (0, 8], (8, 8.5], (8.5, 9], (9, 9.5], (9.5, 10], (10, 100]"
VEHICLE = "metres to the nearest car, van or truck: (-100, 8], (8, 20], (20, 999], none"
PLACE = "x position, 32 values in 16 bins of 2"
TURN = "orientation, 40 values in 16 bins of 2 or 3"
AZIMUTH = "azimuth of the camera, every 20 degrees from 0 to 340"
ELEVATION = "elevation of the camera, every 5 degrees from 30 to 70"
# fmt: off
TASKS = (
    Task("Caltech101", NATURAL, "caltech101", 102, 2_754, 306, 6_084, "object; one class is background",
         note="the training set has 30 pictures of each class, the test set does not"),
    Task("CIFAR-100", NATURAL, "cifar", 100, 45_000, 5_000, 10_000, "object"),
    Task("DTD", NATURAL, "dtd", 47, 1_880, 1_880, 1_880, "texture"),
    Task("Flowers102", NATURAL, "oxford_flowers102", 102, 1_020, 1_020, 6_149, "species"),
    Task("Pets", NATURAL, "oxford_iiit_pet", 37, 2_944, 736, 3_669, "breed"),
    Task("SVHN", NATURAL, "svhn", 10, 65_931, 7_326, 26_032, "digit"),
    Task("Sun397", NATURAL, "sun397", 397, 76_128, 10_875, 21_750, "scene"),
    Task("Camelyon", SPECIALISED, "patch_camelyon", 2, 262_144, 32_768, 32_768, "tumour or not"),
    Task("EuroSAT", SPECIALISED, "eurosat", 10, 16_200, 5_400, 5_400, "land use, of RGB pictures"),
    Task("Resisc45", SPECIALISED, "resisc45", 45, 18_900, 6_300, 6_300, "scene from above"),
    Task("Retinopathy", SPECIALISED, "diabetic_retinopathy", 5, 35_126, 10_906, 42_670, "severity, 0 to 4"),
    Task("Clevr-count", STRUCTURED, "clevr_count", 8, 63_000, 7_000, 15_000, COUNT, crop=False),
    Task("Clevr-dist", STRUCTURED, "clevr_dist", 6, 63_000, 7_000, 15_000, NEAREST, crop=False),
    Task("DMLab", STRUCTURED, "dmlab", 6, 65_550, 22_628, 22_735, "reward and distance of the nearest object",
         crop=False, note="which class is which, the data says; the wording is assumed"),
    Task("KITTI-dist", STRUCTURED, "kitti", 4, 6_347, 423, 711, VEHICLE, crop=False, note=KITTI),
    Task("dSpr-loc", STRUCTURED, "dsprites_loc", 16, 589_824, 73_728, 73_728, PLACE, flip=False, crop=False),
    Task("dSpr-ori", STRUCTURED, "dsprites_ori", 16, 589_824, 73_728, 73_728, TURN, flip=False),
    Task("sNORB-azim", STRUCTURED, "smallnorb_azi", 18, 24_300, 12_150, 12_150, AZIMUTH, flip=False,
         note=LATE),
    Task("sNORB-elev", STRUCTURED, "smallnorb_ele", 9, 24_300, 12_150, 12_150, ELEVATION, note=LATE),
)
# fmt: on


def find(name: str) -> Task:
    """The task of a name, or of the name that vpt and NOAH give its folder. Raises Usage."""
    for task in TASKS:
        if name in (task.name, task.folder):
            return task
    raise Usage(f"no task {name!r:.80} of VTAB; there are {', '.join(task.name for task in TASKS)}")


def overrides(task: Task, side: int, judged: int) -> dict[str, Any]:
    """The keys of a recipe, as `section.key`, by which it does not augment what the task needs.

    side, judged: of the square that the model sees in training and in evaluations, in pixels. Without crops a
    picture is squeezed to it, whole.
    """
    flip = {} if task.flip else {"input.mirror": False}
    sides = {} if task.crop else {"input": side, "evaluate": judged}
    whole = {
        f"{section}.{key}": value
        for section, side in sides.items()
        for key, value in (("method", "square"), ("resize", side), ("crop", side))
    }
    return flip | whole


def as_json(task: Task) -> dict[str, Any]:
    """A task as `hpcscale transfer tasks --json` prints it: its fields, and `off`."""
    found: dict[str, Any] = task._asdict() | {"off": list(task.off)}
    return {key: value for key, value in found.items() if key not in ("flip", "crop")}
