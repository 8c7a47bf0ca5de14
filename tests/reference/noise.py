"""Slow oracle of hpcscale.samples.noise: one label after the other, in Python's own integers."""

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
NOISE = 0x4E4F495345


def mixed(word):
    """The finaliser of SplitMix64."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def word(identity, c, turn):
    """The random word number `turn` (1, 2, ...) of a class of a picture."""
    state = mixed(mixed(mixed(NOISE) + identity & MASK) + c & MASK)
    return mixed(state + turn * GOLDEN & MASK)


def picked(place, counts, without):
    """The labels of all classes but `without` are laid out, and one is picked; `place` is a random word."""
    counts = [0 if c in without else count for c, count in enumerate(counts)]
    place = place * sum(counts) >> 64
    for c, count in enumerate(counts):
        if place < count:
            return c
        place -= count
    return None


def replaced(identity, classes, counts, share, duplicates="merge", attempts=8):
    """The classes of one sample with noise, sorted."""
    hit = [c for c in classes if word(identity, c, 1) / 2**64 < share]
    first = {c: picked(word(identity, c, 2), counts, {c}) for c in hit}
    if duplicates == "merge":
        return sorted(set(classes) - set(hit) | set(first.values()))
    taken, given = set(classes), {}
    for attempt in range(attempts + 1):
        for c in [c for c in hit if c not in given]:
            without = {c} if attempt < attempts else taken
            drawn = picked(word(identity, c, attempt + 2), counts, without)
            if drawn is not None and drawn not in taken:
                given[c] = drawn
                taken.add(drawn)
    return sorted(set(classes) - set(hit) | {given.get(c, first[c]) for c in hit})
