"""Tags rewritten to classes."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_wordnet import WORDS, data

from hpcscale.labels import build, canonical, hierarchy
from hpcscale.labels.build import Choice


def test_rewrite(folder):
    tags, records = data(WORDS)
    vocabulary = build.from_wordnet(tags, records, Choice(ancestors=False), folder=folder)
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in WORDS]
    kept, offsets, classes = canonical.rewrite(vocabulary, tags, *hierarchy.csr(ids))
    assert kept.tolist() == [0, 1, 2]
    names = [{vocabulary.classes[c] for c in classes[a:b]} for a, b in pairwise(offsets)]
    assert names == [{"brown_bear", "crane"}, {"brown_bear", "bear"}, {"brown_bear"}]
    # Once more, from the classes' canonical forms: nothing changes.
    forms = [
        next(tag for tag, c in vocabulary.tags.items() if c == k) for k in range(len(vocabulary.classes))
    ]
    again = canonical.rewrite(vocabulary, forms, offsets, classes)
    assert again[0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(again[1], offsets)
    np.testing.assert_array_equal(again[2], classes)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*"xyz", "bruin", "brownbear", "crane", "bear", "beast"]), max_size=4))
)
def test_no_record_without_class_is_left_and_order_does_not_matter(folder, records):
    tags, walk = data([["bruin", "crane", "bear", "beast"], *records])
    vocabulary = build.from_wordnet(tags, walk, folder=folder)
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in records]
    kept, offsets, classes = canonical.rewrite(vocabulary, tags, *hierarchy.csr(ids))
    assert (np.diff(offsets) >= 1).all()
    assert kept.tolist() == [i for i, record in enumerate(records) if set(record) - set("xyz")]
    turned = canonical.rewrite(vocabulary, tags, *hierarchy.csr([each[::-1] for each in ids]))
    for one, other in zip((kept, offsets, classes), turned, strict=True):
        np.testing.assert_array_equal(one, other)
