"""Names that others chose: shown so that no terminal, page or spreadsheet obeys them, in any locale."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hpcscale import config
from hpcscale.cli import main
from hpcscale.text import markdown, shown, shown_lines

OBEYED = "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
EVIL = "a\x1b[31m\x9b2J\r\u202eb\x07"


@given(st.text(st.characters() | st.characters(codec=None, categories=["Cs", "Cc", "Cf"])))
def test_what_is_shown_can_be_printed_and_obeys_nothing(text):
    assert not re.search(f"{OBEYED}|[\t\n]", shown(text))
    assert not re.search(OBEYED, shown_lines(text))
    assert (shown_lines(text).count("\n"), shown_lines(text).count("\t")) == (
        text.count("\n"),
        text.count("\t"),
    )
    shown(text).encode()


@pytest.mark.parametrize(
    "text", ["dog", "Käfer", "漢字", "किताब", "dog\u200d\N{HEAVY BLACK HEART}\ufe0f", "a\\b"]
)
def test_ordinary_names_are_shown_as_they_are(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("[a](javascript:x)", r"\[a\](javascript:x)"),
        ("https://x.org", r"https\://x.org"),
        ("www.x.org", r"www\.x.org"),
        ("a|b", r"a\|b"),
        ("`x` *y* _z_ ~w~ $v$ &lt;", r"\`x\` \*y\* \_z\_ \~w\~ \$v\$ \&lt;"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("a\n\nb", r"a\\n\\nb"),
        ("brown_bear-2.jpg", "brown_bear-2.jpg"),
    ],
)
def test_markdown_shows_a_name_as_a_name(text, written):
    assert markdown(text) == written


# commands


@pytest.fixture
def source(tmp_path):
    """Pictures whose names, tags and folder a terminal would obey, or a locale not know."""
    folder = tmp_path / os.fsdecode(b"s\xff\xc3\xa9")
    folder.mkdir()
    lines = []
    for number, tag in enumerate(("dog", "\ud83d", EVIL, "x\ny", "a" * 100_000)):
        name = f"{number}{EVIL}é.jpg"
        Image.new("RGB", (16, 16), (40 * number, 9, 99)).save(folder / name, "JPEG")
        lines.append(json.dumps({"image": name, "tags": [tag, "dog"]}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    (tmp_path / "tree.tsv").write_text(f"dog\ncat {EVIL}\tdog\n".replace("\r", ""), "utf-8")
    return folder


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict ASCII": {"PYTHONIOENCODING": "ascii:strict"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_command_prints_any_name_in_any_locale(source, tmp_path, locale):
    out, codes, vocabulary = (tmp_path / os.fsdecode(name) for name in (b"o\xff", b"c\xff", b"v\xff.json"))
    manifest = source / "manifest.jsonl"
    for code, *words in (
        (0, "data", "ingest", source, out, "--workers", "1"),
        (0, "data", "show", out, "--out", tmp_path / "sheet.png"),
        (0, "data", "info", out),
        (0, "data", "verify", out),
        (0, "labels", "build", vocabulary, "--data", out, "--parents", tmp_path / "tree.tsv"),
        (0, "labels", "show", vocabulary, "dog"),
        (2, "labels", "show", vocabulary, EVIL),
        (1, "labels", "build", tmp_path / "w.json", "--manifest", manifest, "--parents", manifest),
        (2, "data", "info", tmp_path / f"none{EVIL}"),
        (0, "dedup", "hash", source, codes, "--workers", "1"),
        (0, "dedup", "print", codes),
        (0, "dedup", "search", codes, "--min-quality", "0"),
        (2, EVIL),
    ):
        command = [sys.executable, "-m", "hpcscale", *words]
        done = subprocess.run(
            command, env={**os.environ, **LOCALES[locale]}, capture_output=True, check=False
        )
        printed = (done.stdout + done.stderr).decode("latin-1" if locale == "Latin-1" else "utf-8")
        assert done.returncode == code, printed
        assert "Traceback" not in printed
        assert not re.search(OBEYED, printed)
    made = {b"c\xff", b"o\xff", b"s\xff\xc3\xa9", b"sheet.png", b"tree.tsv", b"v\xff.json"}
    assert set(os.listdir(os.fsencode(tmp_path))) == made


def test_what_a_name_holds_ends_no_line(source, tmp_path):
    assert CliRunner().invoke(main, ["data", "ingest", str(source), str(tmp_path / "o")]).exit_code == 0
    said = CliRunner().invoke(main, ["data", "show", str(tmp_path / "o"), "--out", str(tmp_path / "s.png")])
    assert len(said.stdout.splitlines()) == 5 + 1
    assert max(map(len, said.stdout.splitlines())) < 300


def test_a_nul_in_a_path_is_wrong_usage():
    said = CliRunner().invoke(main, ["data", "info", "a\0b"])
    assert said.exit_code == 2
    assert r"'a\x00b': no path and no value holds a NUL" in said.output


def test_a_configuration_keeps_a_path_that_is_not_utf8(tmp_path):
    path = Path(os.fsdecode(b"d\xff"))
    values = {
        "data": {"train": path, "vocabulary": "é"},
        "schedule": {"lr": 1e-7},
        "train": {"steps": 1, "batch": 1},
    }
    settings = config.check(config.Config, values, "test")
    (tmp_path / "config.json").write_text(config.dump(settings), "utf-8")
    assert config.read(tmp_path / "config.json") == settings
