"""More parts of a hash file than a process may open files."""

import subprocess
import sys
from pathlib import Path

from test_hashes import make_pictures

from hpcscale.data.codes import read_codes
from hpcscale.dedup.hashes import hash_source

GO_ON = """
import pathlib, resource, sys
from hpcscale.dedup import hashes
hashes.PART_ROWS = 1
source, out = map(pathlib.Path, sys.argv[1:])
hashes.hash_source(source, out, workers=1, part=(0, 1))
resource.setrlimit(resource.RLIMIT_NOFILE, (25, 25))
hashes.hash_source(source, out, workers=1)
"""


def test_finished_parts_are_compared_one_after_the_other(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "pictures", 40)
    expected = hash_source(source, tmp_path / "one.h5", workers=1)
    subprocess.run([sys.executable, "-c", GO_ON, source, tmp_path / "out.h5"], check=True)
    assert expected is not None
    assert read_codes(tmp_path / "out.h5").digest == expected.digest
    assert not list(tmp_path.glob("*.parts"))
