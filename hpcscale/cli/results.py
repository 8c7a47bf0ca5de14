"""hpcscale evaluate-results: what detections or segmentations in files are worth. Parse, call, print."""

import json
from pathlib import Path
from typing import cast

import click

from hpcscale.cli.terminal import AS_JSON, FILE, SOURCE, Number

KINDS = ("boxes", "masks", "keypoints", "voc", "segmentation")  # as in hpcscale.evaluate.results


@click.command("evaluate-results")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What is evaluated; see below.")
@click.option("--annotations", type=SOURCE, required=True, help="The truth: a file of COCO, or a folder.")
@click.option("--results", type=SOURCE, required=True, help="What a model found: a JSON file, or a folder.")
@click.option("--iou", type=Number(0, 1, min_open=True), default=0.5, show_default=True,
              help="With voc: from which overlap on a box is right.")  # fmt: skip
@click.option("--points", type=click.Choice(["11", "all"]), default="all", show_default=True,
              help="With voc: average precision of 2007 (11) or since 2010 (all).")  # fmt: skip
@click.option("--drop", type=FILE, help="Pictures with a near-duplicate: a list as `dedup drop` writes it.")
@AS_JSON
def evaluate_results(
    kind: str, annotations: Path, results: Path, iou: float, points: str, drop: Path | None, as_json: bool
) -> None:
    """Evaluate boxes, masks, key points or segmentations.

    \b
    boxes, masks, keypoints  annotations of COCO (JSON) and results in the format
                             of its server: AP and AR as COCO prints them
    voc                      a folder of PASCAL VOC's XML, and a JSON list of
                             {image, class, bbox [xmin, ymin, xmax, ymax], score}
    segmentation             two folders of PNGs, whose values are classes (255
                             in the truth is ignored): IoU by class and its mean

    With --drop, every number is also printed without the listed pictures, which are names, or ids of COCO,
    one a line.
    """
    folders = {"voc": (True, False), "segmentation": (True, True)}.get(kind, (False, False))
    for option, path, folder in zip(("annotations", "results"), (annotations, results), folders, strict=True):
        if path.is_dir() != folder:
            wanted = "a folder" if folder else "a file"
            raise click.UsageError(f"--{option} {path}: with --kind {kind} it is {wanted}")

    from hpcscale.evaluate import results as files_of
    from hpcscale.evaluate import voc

    found = files_of.evaluate(
        cast(files_of.Kind, kind), annotations, results, drop, iou, cast(voc.Points, points)
    )
    click.echo(json.dumps(files_of.as_json(found)) if as_json else files_of.as_text(found))
