"""From the raw tags of a batch to the targets of loss and metrics. One Targets per run and data set.

In: tag lists of the samples, CSR over the data set's own tag table. Out: target rows for a range of classes,
label lists closed over all ancestors, and single truths. The work is done in C++
(cpp/include/hpcscale/targets.hpp).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.labels import hierarchy
from hpcscale.labels.vocabulary import Vocabulary, tag_classes

KINDS: dict[str, Literal["ones", "shares"]] = {"logistic": "ones", "softmax": "shares"}


class OwnClasses:
    """The classes that tags select themselves, without ancestors."""

    def __init__(self, vocabulary: Vocabulary, tags: Sequence[str] | None) -> None:
        """tags: the data set's tag table; None: then ids of tags are those of classes."""
        without_ancestors = hierarchy.csr([()] * len(vocabulary.classes))
        self._selected = ops.Closure(_selected(vocabulary, tags), *without_ancestors)

    def classes(
        self, tag_offsets: NDArray[np.int64], tag_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Of each sample, sorted, each once, as CSR. IndexError names a tag id that is out of range, and its
        sample."""
        return self._selected.labels(tag_offsets, tag_ids)


class Targets:
    """Buffers are used again for every batch: the result of `rows` is valid until the next call."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        tags: Sequence[str] | None,
        kind: Literal["logistic", "softmax"],
        batch: int,
        classes: range | None = None,
        buffer: NDArray[np.float32] | None = None,
    ) -> None:
        """tags: the data set's tag table; None: then ids of tags are those of classes. batch: the most
        samples of one call. classes: those of this rank's slice of the classifier, by default all. buffer:
        zeros to write into, for pinned memory; by default one is made. kind:

        - 'logistic': float32 (batch, classes), 1 where a class holds.
        - 'softmax': float32 (batch, classes), 1/k where one of k classes holds. k counts all classes of the
          sample, also ancestors and those of other slices, so that all slices together sum to 1. Mahajan et
          al. 2018 (section 2.3) count the picture's own tags; a vocabulary built with --no-ancestors, flat as
          theirs, gives exactly that.
        """
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, found {batch}")
        chosen = range(len(vocabulary.classes)) if classes is None else classes
        if chosen.step != 1:
            raise ValueError(f"classes must be a range with step 1, found {chosen}")
        tree = vocabulary.hierarchy()
        self._closure = ops.Closure(_selected(vocabulary, tags), tree.ancestor_offsets, tree.ancestor_ids)
        self._own = OwnClasses(vocabulary, tags)
        if buffer is not None and len(buffer) != batch:
            raise ValueError(f"the buffer has {len(buffer)} rows for a batch of {batch}")
        self._buffer = np.zeros((batch, len(chosen)), np.float32) if buffer is None else buffer
        self._rows = ops.TargetRows(self._closure, chosen.start, chosen.stop, KINDS[kind], self._buffer)

    def rows(self, tag_offsets: NDArray[np.int64], tag_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Target rows of n <= batch samples: a view of the buffer's first n rows, valid until the next call.

        A sample without a class gets a row of zeros. IndexError names a tag id that is out of range, and its
        sample.
        """
        self._rows.fill(tag_offsets, tag_ids)
        return self._buffer[: len(tag_offsets) - 1]

    def labels(
        self, tag_offsets: NDArray[np.int64], tag_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Classes that hold for each sample, ancestors included, sorted, each once, as CSR."""
        return self._closure.labels(tag_offsets, tag_ids)

    def truths(self, tag_offsets: NDArray[np.int64], tag_ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each sample the class that its tags select if they select exactly one, else -1. (n,)

        Ancestors do not count here. This is the truth for top-1 and top-5. IndexError names a tag id that is
        out of range, and its sample.
        """
        offsets, classes = self._own.classes(tag_offsets, tag_ids)
        result = np.full(len(offsets) - 1, -1, np.int32)
        single = np.diff(offsets) == 1
        result[single] = classes[offsets[:-1][single]]
        return result


def _selected(vocabulary: Vocabulary, tags: Sequence[str] | None) -> NDArray[np.int32]:
    """The class of each tag, or -1  # (tags,)"""
    if tags is None:
        return np.arange(len(vocabulary.classes), dtype=np.int32)
    return tag_classes(vocabulary, tags)
