"""Which class a tag selects: spellings in many scripts, emojis, and numbers, which no word explains."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.labels import build, hierarchy, wordnet
from hpcscale.labels.build import Choice
from hpcscale.labels.vocabulary import VocabularyError, normalise, tag_classes

HEART, SUN = "\N{HEAVY BLACK HEART}\ufe0f", "\N{BLACK SUN WITH RAYS}\ufe0f"
HAS_WORDNET = pytest.mark.skipif(
    not (wordnet.FOLDER / "data.noun").exists(), reason="wordnet-base is not installed"
)


def walk(tags):
    """One record for each tag."""
    return lambda: iter([hierarchy.csr([[number] for number in range(len(tags))])])


def selected(names, tags):
    """The name of the class that each tag selects, or None."""
    tree = hierarchy.build(names, [()] * len(names))
    vocabulary = build.from_hierarchy(tags, walk(tags), tree)
    return [None if c < 0 else names[c] for c in tag_classes(vocabulary, tags).tolist()]


@pytest.mark.parametrize(
    "tag",
    [
        HEART,
        SUN,
        "\N{BLACK SUN WITH RAYS}",
        "\N{HEAVY BLACK HEART}\ufe0e",
        "\N{WAVING WHITE FLAG}\ufe0f\u200d\N{RAINBOW}",
        "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}",
        "\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
        "\N{REGIONAL INDICATOR SYMBOL LETTER D}\N{REGIONAL INDICATOR SYMBOL LETTER E}",
        "\N{WAVING BLACK FLAG}\U000e0067\U000e0062\U000e007f",
        "\N{BEAR FACE}\u0301",  # a mark of nothing that is kept
        "\u0301",
        "\u20e3",
        "\u200d",
        "\u00ad",
        "\N{HANGUL FILLER}",
        "\N{HALFWIDTH HANGUL FILLER}",
        "\N{KATAKANA-HIRAGANA VOICED SOUND MARK}",
        "\N{ACUTE ACCENT}",
        "\ud83d",
        "_-#",
    ],
    ids=ascii,
)
def test_what_has_no_letter_is_no_word(tag):
    assert normalise(tag) == ""


@pytest.mark.parametrize(
    "tag",
    [
        "dog" + HEART,
        "dog\N{HEAVY BLACK HEART}\ufe0e",
        HEART + "dog",
        "do\u200dg",
        "\u200fdog\u200e",
        "d\u00adog",
        "#dog\u034f",
        "d\u0336o\u0336g\u0336",
        "d\u20dd\u20dfog",
        "\N{FULLWIDTH LATIN SMALL LETTER D}og",
        "dog\N{BEAR FACE}\u0301",
        "dog\N{ACUTE ACCENT}",
        "dog \u0301",
        "\U000e0064dog",
    ],
    ids=ascii,
)
def test_what_only_changes_the_looks_goes(tag):
    assert normalise(tag) == "dog"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pâté", "pate"),
        ("किताब", "कताब"),
        ("שָׁלוֹם", "שלום"),
        ("عَلِم", "علم"),
        ("น้ำ", "นำ"),
        ("が", "か"),
        ("kız", "kiz"),
        ("ё", "е"),
    ],
)
def test_marks_of_letters_tell_words_apart(one, other):
    assert normalise(one) != normalise(other)
    assert normalise(one) == normalise(unicodedata.normalize("NFD", one)) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İstanbul", "istanbul"),
        ("كـتاب", "كتاب"),
        ("می\u200cخواهم", "میخواهم"),
        ("র\u200d্য", "র্য"),  # a joiner before the mark that it shapes
        ("\N{HALFWIDTH KATAKANA LETTER KA}\N{HALFWIDTH KATAKANA VOICED SOUND MARK}", "ガ"),
        ("ΟΔΟΣ", "οδος"),
    ],
)
def test_spellings_of_one_word_are_one(one, other):
    assert normalise(one) == normalise(other) != ""


CHARACTERS = st.one_of(
    st.characters(categories=["Mn", "Mc", "Me", "Cf"]), st.characters(), st.sampled_from("aiIİıj#_ \u0345")
)


@settings(max_examples=1000, deadline=None)
@given(st.text(CHARACTERS, max_size=8))
def test_normalise_twice_changes_nothing_with_many_marks(tag):
    once = normalise(tag)
    assert normalise(once) == once
    assert normalise("#" + tag) == once


def test_an_emoji_selects_its_own_class_alone():
    tags = [HEART, "dog" + HEART, "fish", SUN, "\N{BEAR FACE}\ufe0f"]
    assert selected([SUN, "dog", "fish"], tags) == [None, "dog", "fish", SUN, None]


def test_numbers_select_a_class_only_as_written():
    tags = ["15", "#15", "1.5", "1/5", "15%", "\N{VULGAR FRACTION ONE FIFTH}", "٣", "nine"]
    assert selected(["15", "2.5", "nine"], tags) == ["15", "15", None, None, None, None, None, "nine"]
    assert selected(["2.5", "nine"], ["25", "2.5", "nine"]) == [None, "2.5", "nine"]


@pytest.mark.parametrize("tags", [["900", "901", "911"], ["7"], ["٩١١", "#5", "1.0"]])
def test_a_hierarchy_that_names_no_number_does_not_take_numbers(tags):
    with pytest.raises(VocabularyError, match=f"all {len(tags)} tags are numbers, such as .*--parents"):
        selected(["dog", "fish"], tags)
    assert selected(["dog", tags[0]], tags)[0] == tags[0]


@HAS_WORDNET
def test_numbers_are_no_words_of_wordnet():
    for use in (None, "tags", "both"):
        with pytest.raises(VocabularyError, match="all 2 tags are numbers, such as '911', '10'"):
            build.from_wordnet(["911", "10"], walk(["10", "911"]), Choice(use=use))
    tags = ["911", "9/11", "dog", "10", "n02084071"]
    vocabulary = build.from_wordnet(tags, walk(tags), Choice(use="both"))
    classes = [None if c < 0 else vocabulary.classes[c] for c in tag_classes(vocabulary, tags)]
    assert classes[:2] == [None, None]
    assert classes[3] is None
    assert classes[4] == "dog (n02084071)"
