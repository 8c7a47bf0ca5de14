"""A fitted probe in a file: arrays weights (d, k) and bias (k,) float64, classes (k,) int64, and a mark."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from hpcscale.files import marked, replacing
from hpcscale.transfer.probe import Fit

MARK = b"hpcscale-probe"
kept = marked(MARK)  # for `files.check_output`


def keep(fitted: Fit, out: Path) -> None:
    """Write a probe to OUT.npz or OUT.safetensors, whole, in the place of what is there."""
    weights, bias, classes = (np.ascontiguousarray(each) for each in fitted[:3])
    about = {"format": MARK.decode(), "l2": repr(fitted.l2), "gap": repr(fitted.gap)}
    with replacing(out) as temporary:
        if out.suffix == ".safetensors":
            save_file({"weights": weights, "bias": bias, "classes": classes}, temporary, about)
        else:
            with temporary.open("wb") as stream:  # the mark first, so that it is near the start
                np.savez(stream, about=np.array(list(about.values()), "S32"), weights=weights, bias=bias,
                         classes=classes)  # fmt: skip
