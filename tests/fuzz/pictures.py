"""Pictures and archives: nothing is lost without a word, and what is stored is whole."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from random import Random

import numpy as np
import simplejpeg
from PIL import Image

from hpcscale.data.store import open_data
from tests.fuzz import mutate
from tests.fuzz.documents import whole
from tests.fuzz.harness import Case


def pictures(case: Case) -> None:
    """Every one of the folder is stored, and decodes without a warning, or is in the quarantine."""
    case.copy("pictures")
    names = case.random.sample(sorted(path.name for path in (case.place / "pictures").glob("*.jpg")), 4)
    for name in names:
        case.spoil(f"pictures/{name}", _picture)
    words = ["--resize", 16] if case.random.random() < 0.5 else []
    ingest = ("data", "ingest", "pictures", "packed", "--workers", 1, *words)
    done = case.run(*ingest, writes=("packed",))
    if done.code == 0:
        stored(case, "packed", 8)
    case.run("dedup", "hash", "pictures", "new.h5", "--workers", 1, "--method",
             case.random.choice(("pdq", "phash", "dhash")))  # fmt: skip


def stored(case: Case, folder: str, records: int) -> None:
    """The data set is whole, has every record or its reason, and its JPEGs are without a flaw."""
    kept = whole(case, folder)
    quarantine = (case.place / folder / "quarantine.jsonl").read_text().splitlines()
    case.expect(kept + len(quarantine) == records, f"{kept} stored, {len(quarantine)} not, of {records}")
    case.expect(all(json.loads(line)["reason"] for line in quarantine), "a record without a reason")
    data = open_data(case.place / folder)
    for name, jpeg in zip(data.names(np.arange(kept)), data.jpegs(np.arange(kept)), strict=True):
        try:
            simplejpeg.decode_jpeg(jpeg.tobytes(), strict=True)
        except ValueError as error:
            case.expect("subsampling" in str(error), f"{name} is stored, and libjpeg says {error}")
    case.run("data", "show", folder, "--out", "sheet.png")


def _picture(random: Random, jpeg: bytes) -> bytes:
    kind = random.randrange(9)
    if kind < 4:
        return mutate.data(random, jpeg)
    if kind == 4:  # cut, and closed with an end marker
        return jpeg[: random.randrange(300, len(jpeg))] + b"\xff\xd9"
    if kind == 5:  # junk between segments, or a segment that is doubled
        at, junk = (
            jpeg.index(b"\xff\xdb"),
            random.choice((random.randbytes(3), b"\xff", b"\xff\xe1\x00\x08Exif\0\0")),
        )
        return jpeg[:at] + junk + jpeg[at:]
    image = Image.open(io.BytesIO(jpeg))
    out = io.BytesIO()
    if kind == 6:  # turned, once or twice, or by a damaged value
        exif = Image.Exif()
        exif[0x0112] = random.choice((1, 3, 6, 8, 9, 0, 65535))
        image.save(out, "JPEG", exif=exif)
        return out.getvalue() if random.random() < 0.7 else mutate.data(random, out.getvalue())
    if kind == 7:
        mode = random.choice(("L", "CMYK", "RGB", "1", "YCbCr"))
        form = random.choice(("JPEG", "TIFF"))
        image.convert(mode).save(
            out, form, **({"progressive": random.random() < 0.5} if form == "JPEG" else {})
        )
        return out.getvalue()
    image.convert(random.choice(("RGB", "P", "L", "RGBA"))).save(
        out, random.choice(("PNG", "WEBP", "GIF", "TIFF"))
    )
    return mutate.data(random, out.getvalue()) if random.random() < 0.6 else out.getvalue()


def tars(case: Case) -> None:
    """Archives: an exit code of 0 says that no record was lost."""
    case.copy("tars", "pictures")
    kind, lost = case.random.choice(KINDS), case.random
    tar = case.place / "tars" / "0.tar"
    records = 8 + kind(lost, tar)
    case.note = kind.__name__
    done = case.run("data", "ingest", "tars", "packed", "--workers", 1, writes=("packed",))
    if done.code == 0:
        kept = whole(case, "packed")
        quarantine = (case.place / "packed" / "quarantine.jsonl").read_text().splitlines()
        case.expect(kept + len(quarantine) >= records, f"{kept} stored, {len(quarantine)} not, of {records}")
        if kind in TAGGED:
            case.expect("no tag" not in done.err, "tags are lost")
    case.run("dedup", "hash", "tars", "new.h5", "--workers", 1)


def _members(tar: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(tar) as opened:
        return [(member, opened.extractfile(member).read()) for member in opened.getmembers()]  # type: ignore[union-attr]


def _write(tar: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as opened:
        for member, content in members:
            opened.addfile(member, io.BytesIO(content))


def cut(random: Random, tar: Path) -> int:
    content = tar.read_bytes()
    tar.write_bytes(content[: random.randrange(0, len(content) - 12_000)])
    return 0


def flipped(random: Random, tar: Path) -> int:
    """In a header, where the checksum tells."""
    content = bytearray(tar.read_bytes())
    at = content.index(f"00{random.randrange(4)}.".encode())
    content[at + random.randrange(150)] ^= 1 << random.randrange(8)
    tar.write_bytes(bytes(content))
    return 0


def joined(random: Random, tar: Path) -> int:
    other = tar.with_name("1.tar")
    tar.write_bytes(tar.read_bytes() + other.read_bytes())
    other.unlink()
    return 0


def linked(random: Random, tar: Path) -> int:
    members = _members(tar)
    at = random.choice([i for i, (member, _) in enumerate(members) if member.name.endswith("jpg")])
    member = tarfile.TarInfo("100.jpg")
    member.type = random.choice((tarfile.LNKTYPE, tarfile.SYMTYPE))
    member.linkname = random.choice((members[at][0].name, "../../etc/passwd", "100.jpg", "/dev/zero"))
    _write(tar, [*members, (member, b"")])
    return 1


def special(random: Random, tar: Path) -> int:
    member = tarfile.TarInfo("100.jpg")
    member.type = random.choice((tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE))
    _write(tar, [*_members(tar), (member, b"")])
    return 0


def twice(random: Random, tar: Path) -> int:
    members = _members(tar)
    _write(tar, [*members[:4], *(members[:2] if random.random() < 0.5 else members[2:4]), *members[4:]])
    return 0


def unsorted(random: Random, tar: Path) -> int:
    members = _members(tar)
    random.shuffle(members)
    _write(tar, members)
    return 0


def renamed(random: Random, tar: Path) -> int:
    """Names that are hard to read, or lead outside."""
    members = _members(tar)
    odd = random.choice(
        ("../x", "/x", "a\nb", "\x1b[1m", "é", "x" * 300, "a/../b", "$HOME", ".hidden", "a b")
    )
    for member, _ in members[:2]:
        member.name = odd + member.name[3:]
    _write(tar, members)
    return 0


def sparse(random: Random, tar: Path) -> int:
    """A picture as GNU's `tar -S` keeps it: one map of one piece, in the old form."""
    members = _members(tar)
    picture = next(content for member, content in members if member.name.endswith("jpg"))
    header = bytearray(tarfile.TarInfo("100.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[124:136] = b"%011o\0" % len(picture)
    header[386:398], header[398:410] = b"%011o\0" % 512, b"%011o\0" % len(picture)
    header[483:495] = b"%011o\0" % (512 + len(picture))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = tar.read_bytes().rstrip(b"\0")
    content += b"\0" * (-len(content) % 512)
    tar.write_bytes(content + bytes(header) + picture + b"\0" * (-len(picture) % 512 + 1024))
    return 1


def packed(random: Random, tar: Path) -> int:
    tar.with_name("2.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    return 0


def bad_tags(random: Random, tar: Path) -> int:
    members = _members(tar)
    at = random.choice([i for i, (member, _) in enumerate(members) if member.name.endswith("json")])
    content = mutate.document(random, members[at][1].decode())
    members[at][0].size = len(content)
    _write(tar, [*members[:at], (members[at][0], content), *members[at + 1 :]])
    return 0


KINDS = (cut, flipped, joined, linked, special, twice, unsorted, renamed, sparse, packed, bad_tags)
TAGGED = (joined, unsorted, special, packed)
