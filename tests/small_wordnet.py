"""A WordNet of a few synsets, and data sets whose tags are its words."""

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


def write(folder):
    """The synsets as files, in the format of wndb(5WN)."""
    lines = ["  1 a licence  "]
    senses = {}
    for number, (lemmas, *above) in SYNSETS.items():
        words = lemmas.split()
        sign = "@i" if number in INSTANCES else "@"
        pointers = [f"{sign} {p:08d} n 0000" for p in above] + ["~ 00000010 n 0000", "+ 00692347 v 0101"]
        word_fields = " ".join(f"{word} 0" for word in words)
        lines.append(
            f"{number:08d} 03 n {len(words):02x} {word_fields} {len(pointers):03d} {' '.join(pointers)} | x"
        )
        for word in words:
            senses.setdefault(word.lower(), []).append(number)
    senses["crane"] = [21, 13]  # the machine is meant more often
    (folder / "data.noun").write_text("\n".join(lines) + "\n")
    index = [
        f"{w} n {len(s)} 1 @ {len(s)} 0 {' '.join(f'{n:08d}' for n in s)}" for w, s in sorted(senses.items())
    ]
    (folder / "index.noun").write_text("\n".join(["  1 a licence", *index]) + "\n")


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
