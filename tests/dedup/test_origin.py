"""Pairs and audits say which pictures they are of, and refuse others of the same names."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from evaluated import CLASSES, random_results
from PIL import Image
from sources import KINDS, as_data_set, as_tar, make_pictures

from hpcscale import files, origin
from hpcscale.cli import main
from hpcscale.data.codes import Codes, digests_of, read_codes, write_codes
from hpcscale.data.store import open_data
from hpcscale.dedup.hashes import hash_source
from hpcscale.dedup.search import Near, search
from hpcscale.evaluate import evaluations
from hpcscale.files import FileError
from hpcscale.pairs import read_pairs
from hpcscale.report import tables
from hpcscale.report.runs import read as read_run


def digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def hashed(source: Path, out: Path) -> Path:
    hash_source(source, out, "dhash", workers=1)
    return out


def copies(folder: Path, source: Path, quality: int = 50) -> Path:
    """The pictures of `source`, compressed again: near-duplicates of other bytes and the same names."""
    folder.mkdir(parents=True)
    for file in sorted(source.glob("*.jpg"))[:-1]:
        Image.open(file).save(folder / file.name, quality=quality)
    return folder


def resized(folder: Path) -> Path:
    return as_data_set(folder, resize=40)


@pytest.mark.parametrize("kind", [*KINDS, resized], ids=["folder", "tar", "data set", "smaller"])
def test_a_picture_has_one_digest_wherever_it_was_hashed(tmp_path: Path, kind) -> None:
    pictures = make_pictures(tmp_path / "set")
    (pictures / "03.jpg").write_bytes(b"no picture")  # those behind it keep their own digests
    files = {file.name: digest(file) for file in pictures.iterdir()}
    codes = read_codes(hashed(kind(pictures), tmp_path / "a.h5"))
    prefix = "set.tar/" if kind is as_tar else ""
    found = digests_of(codes, np.arange(len(codes.names)))
    assert {
        name.removeprefix(prefix): row.tobytes().hex() for name, row in zip(codes.names, found, strict=True)
    } == {name: files[name] for name in files if name not in ("03.jpg", "09.jpg")}


def test_search_says_of_which_pictures_its_lines_are(tmp_path: Path) -> None:
    one = make_pictures(tmp_path / "one")
    two = copies(tmp_path / "two", one)
    (two / "05.jpg").unlink()
    (two / "06.jpg").write_bytes((two / "07.jpg").read_bytes())
    a, b, out = hashed(one, tmp_path / "a.h5"), hashed(two, tmp_path / "b.h5"), tmp_path / "pairs.tsv"
    search(a, b, out, Near(radius=4))
    names = [[line.split("\t")[i] for line in out.read_text().splitlines()] for i in (0, 1)]
    assert "07.jpg" in names[0]
    assert "05.jpg" not in names[0]
    content = (tmp_path / "pairs.tsv.json").read_bytes()
    assert json.loads(content) == {
        "writer": "hpcscale",
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "a": {name: digest(one / name) for name in names[0]},
        "b": {name: digest(two / name) for name in names[1]},
    }
    search(a, b, out, Near(radius=4))
    assert (tmp_path / "pairs.tsv.json").read_bytes() == content
    for option in ((), ("--groups",)):
        out = tmp_path / f"within{len(option)}.tsv"
        assert run("dedup", "search", b, "--radius", 0, "--out", out, *option).exit_code == 0
        stated = json.loads(Path(f"{out}.json").read_text())
        assert stated["a"] == {name: digest(two / name) for name in ("06.jpg", "07.jpg")}
        assert stated["b"] is None


def test_both_files_survive_a_kill_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, out = make_pictures(tmp_path / "one"), tmp_path / "pairs.tsv"
    a, b = hashed(one, tmp_path / "a.h5"), hashed(copies(tmp_path / "two", one), tmp_path / "b.h5")
    search(a, b, tmp_path / "whole.tsv", Near(radius=4))
    (tmp_path / "pairs.tsv.json").write_text(f'{origin.MARK}"of an older search"')
    commit = files.commit
    for last in (origin.beside(out), out):
        with monkeypatch.context() as patch:

            def killed(temporary: Path, file: Path, last: Path = last) -> None:
                if file == last:
                    raise OSError("power cut")
                commit(temporary, file)

            patch.setattr(files, "commit", killed)
            with pytest.raises(OSError, match="power cut"):
                search(a, b, out, Near(radius=4))
        assert not out.exists()
    search(a, b, out, Near(radius=4))
    for name in ("", ".json"):
        assert Path(f"{out}{name}").read_bytes() == (tmp_path / f"whole.tsv{name}").read_bytes()
    assert sorted(file for file in os.listdir(tmp_path) if file.startswith("pairs")) == [
        out.name,
        f"{out.name}.json",
    ]
    # Refused pairs leave what lies beside the ones that are there.
    before = Path(f"{out}.json").read_bytes()
    assert run("dedup", "search", a, "--radius", 64, "--out", out).exit_code == 2
    assert Path(f"{out}.json").read_bytes() == before


def test_pictures_of_one_name_and_names_of_any_bytes(tmp_path: Path) -> None:
    names = ["x", os.fsdecode(b"\xff\n"), "x"]
    digests = np.arange(48, dtype=np.uint8).reshape(3, 16)
    codes = Codes(names, np.zeros((3, 1), np.uint64), np.full(3, 100, np.uint8), "dhash", digests=digests)
    write_codes(tmp_path / "a.h5", codes)
    search(tmp_path / "a.h5", None, tmp_path / "p.tsv")
    found = origin.read(tmp_path / "p.tsv")
    rows = [row.tobytes().hex() for row in digests]
    assert found.a == found.b == {"x": (rows[0], rows[2]), names[1]: (rows[1],)}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sha256": "x", "a": {}}', '{"sha256": "x", "a": {"n": 5}, "b": null}',
             '{"sha256": "x", "a": 1, "b": null}', '{"sha256": "x", "a": {"n": "12"}, "b": {}}', "[" * 9999]
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.tsv.json").write_text(text)
    with pytest.raises(FileError, match=r"p\.tsv\.json"):
        origin.read(tmp_path / "p.tsv")


class World:
    """Training pictures, two sets of test pictures of the same names, and a run evaluated on the first."""

    def __init__(self, place: Path, which: str = "validation") -> None:
        train = make_pictures(place / "train")
        for index, quality in enumerate((50, 60)):
            test = copies(place / f"{index}" / "set", train, quality)
            hashed(test, place / f"{index}.h5")
            hashed(train, place / "train.h5")
            search(place / "train.h5", place / f"{index}.h5", place / f"{index}.tsv", Near(radius=4))
        named = [[pair[:2] for pair in read_pairs(place / f"{index}.tsv")] for index in (0, 1)]
        assert named[0] == named[1] != []
        data = open_data(as_data_set(place / "0" / "set"))
        samples = np.arange(data.samples)
        self.run, self.names = place / "run", data.names(samples)
        self.folder = self.run / "evaluations" / f"{which}-00000030"
        self.save(data.source_digests(samples))

    def save(self, digests: np.ndarray | None) -> None:
        rows = [(c, f"class {c}", c + 1, 1, 0.5, 0.5) for c in range(CLASSES)]
        empty = np.zeros(0, np.int64), np.zeros((0, 8, 8, 3), np.uint8)
        which = self.folder.name.split("-")[0]
        numbers = {"samples": len(self.names)}
        summary = {"set": which, "step": 30, "metrics": numbers, "baseline": numbers}
        evaluations.save(
            self.folder, summary, rows, random_results(len(self.names)), self.names, empty, digests
        )

    def audit(self, pairs: Path, *words: str) -> Result:
        return run("dedup", "audit", self.run, "--pairs", pairs, "--test", "b", *words)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("origin"))


def test_pairs_of_other_pictures_are_refused(made: World) -> None:
    place = made.run.parent
    good = made.audit(place / "0.tsv", "--json")
    assert json.loads(good.stdout)["pictures"] == "checked"
    assert "pairs" not in made.audit(place / "0.tsv").stdout.split("undecided")[1].split("full")[0]
    bad = made.audit(place / "1.tsv", "--json")
    assert (bad.exit_code, bad.stdout) == (1, "")
    first = (place / "1.tsv").read_text().split("\t")[1]
    count = len({line.split("\t")[1] for line in (place / "1.tsv").read_text().splitlines()})
    assert f"1.tsv: {count} of its test pictures are not the ones that were evaluated" in bad.stderr
    assert f"the first is {first!r}" in bad.stderr
    # Column A has the same names and other pictures, which is as it should be.
    assert run("dedup", "audit", made.run, "--pairs", place / "0.tsv", "--test", "a").exit_code == 1


def test_one_exchanged_picture_is_found(made: World) -> None:
    place = made.run.parent
    stated = json.loads((place / "0.tsv.json").read_text())
    last = sorted(stated["b"])[-1]
    stated["b"][last] = "0" * 32
    (place / "one.tsv").write_bytes((place / "0.tsv").read_bytes())
    (place / "one.tsv.json").write_text(json.dumps(stated))
    assert (
        "1 of its test pictures are not the ones that were evaluated" in made.audit(place / "one.tsv").stderr
    )


@pytest.mark.parametrize("what", ["missing", "damaged", "another name", "older"])
def test_what_is_not_known_is_said(tmp_path: Path, what: str) -> None:
    made = World(tmp_path)
    pairs, beside = tmp_path / "0.tsv", tmp_path / "0.tsv.json"
    if what == "missing":
        beside.unlink()
    elif what == "damaged":
        beside.write_bytes(beside.read_bytes()[:-9])
    elif what == "another name":
        stated = json.loads(beside.read_text())
        stated["b"].popitem()
        beside.write_text(json.dumps(stated))
    else:
        made.save(None)
    assert json.loads(made.audit(pairs, "--json").stdout)["pictures"] == "unknown"
    assert made.audit(pairs).stdout.count("it is not known whether the pairs are of these pictures: ") == 1


def test_edited_pairs_are_checked_by_their_names(tmp_path: Path) -> None:
    made = World(tmp_path)
    for name in ("0.tsv", "1.tsv"):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[1:]))
    assert json.loads(made.audit(tmp_path / "0.tsv", "--json").stdout)["pictures"] == "checked"
    assert "the pairs were edited since they were found" in made.audit(tmp_path / "0.tsv").stdout
    assert made.audit(tmp_path / "1.tsv").exit_code == 1


def test_pairs_within_the_data_set_of_a_held_out_part(tmp_path: Path) -> None:
    made = World(tmp_path, "held_out")
    for source, code in (("0", 0), ("1", 1)):
        folder = tmp_path / source / "set"
        (folder / "more.jpg").write_bytes((folder / "00.jpg").read_bytes())  # in training
        out = tmp_path / f"within{source}.tsv"
        search(hashed(folder, tmp_path / f"w{source}.h5"), None, out, Near(radius=0))
        assert out.read_text() == "00.jpg\tmore.jpg\t0\n"
        result = run("dedup", "audit", made.run, "--pairs", out, "--json")
        assert result.exit_code == code, result.output
        assert code or json.loads(result.stdout)["pictures"] == "checked"


def test_a_report_prints_no_audit_of_other_pictures(made: World) -> None:
    place = made.run.parent
    (made.run / "pairs").mkdir()

    def lay(name: str, endings: tuple[str, ...] = ("", ".json")) -> tuple[str, str]:
        for ending in ("", ".json"):
            file = made.run / "pairs" / f"validation.tsv{ending}"
            file.unlink(missing_ok=True)
            if ending in endings:
                # The names of training pictures are made others: a report takes no --test.
                text = (place / f"{name}{ending}").read_text()
                file.write_text(
                    "".join(f"train/{line}" for line in text.splitlines(keepends=True))
                    if not ending
                    else text
                )
        found = read_run(made.run)
        return tables.summary(found), "\n".join(found.remarks)

    text, remarks = lay("0.tsv")
    assert "have near-duplicates in the training data" in text
    assert "not known whether" not in text
    assert "not audited" not in remarks
    text, remarks = lay("1.tsv")
    assert "have near-duplicates" not in text
    assert "near-duplicates not audited: pairs/validation.tsv: " in remarks
    assert "are not the ones that were evaluated" in remarks
    text, remarks = lay("0.tsv", ("",))
    assert "It is not known whether the pairs are of these pictures" in text
