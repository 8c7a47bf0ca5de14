"""`hpcscale doctor` where it is meant to run; it finds nothing on a healthy cluster that would stop a job."""

import json
from typing import Any

import pytest
import rig

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.usefixtures("cluster"),
]

PROGRAM = rig.CLONE / ".venv-login/bin/hpcscale"


def problems(found: dict[str, Any]) -> list[dict[str, str]]:
    return [finding for finding in found["findings"] if finding["state"] == "problem"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("login node", [PROGRAM, "doctor", "--site", rig.SITE, "--json"]),
        ("compute node", ["srun", PROGRAM, "doctor", "--site", rig.SITE, "--json"]),
        ("image", ["srun", rig.APPTAINER, "exec", "--cleanenv", rig.IMAGE, "hpcscale", "doctor", "--json"]),
    ],
)
def test_healthy(place: str, words: list[str]) -> None:
    found = json.loads(rig.login(*words))
    assert found["place"] == place
    assert problems(found) == []
    assert len(found["findings"]) >= 3


def test_no_slurm() -> None:
    """A login node that lost its controller's configuration: said, and the exit code is 1."""
    with pytest.raises(rig.Failed, match="exit code 1") as failure:
        rig.login("env", "SLURM_CONF=/nonexistent", PROGRAM, "doctor", "--site", rig.SITE)
    assert "problem" in str(failure.value)
