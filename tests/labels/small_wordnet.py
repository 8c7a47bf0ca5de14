"""A WordNet of a few synsets, and data sets whose tags are its words: for the tests of labels."""

from hpcscale.labels import hierarchy

# number: lemmas, hypernyms (@, or @i as a second list)
SYNSETS = {
    1: ("entity",),
    5: ("polar_bear", 11),  # stands before its parent in the file
    10: ("animal beast", 1),
    11: ("bear", 10),
    12: ("brown_bear bruin Ursus_arctos", 11),
    13: ("crane", 10),
    14: ("wader", 10),
    20: ("device", 1),
    21: ("crane", 20),
    22: ("lifting_device", 20),
    23: ("tower_crane Tower-Crane", 21, 22),  # two parents
    24: ("bear", 20),  # an ambiguous word
    30: ("Paddington paddington_bear", 12),
    31: ("beast", 1),
}
INSTANCES = {30}


def wnid(number):
    return f"n{number:08d}"


def data(records):
    """Tag table and walk of records given as lists of tags; in two chunks."""
    tags = list(dict.fromkeys(tag for record in records for tag in record))
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in records]
    return tags, lambda: iter([hierarchy.csr(ids[:2]), hierarchy.csr(ids[2:])])


def held(vocabulary, c):
    return [vocabulary.classes[a] for a in vocabulary.hierarchy().ancestors(c)]


WNIDS = [[wnid(12), "bruin"], [wnid(13)], [wnid(12), "nonsense"], [wnid(23)]]
WORDS = [["#Bruin", "crane"], ["Brown Bear", "bear"], ["ursus arctos", "bruin"], ["nonsense"], []]
