"""The login node that tests of `submit` and its kin work on."""

from pathlib import Path

import login_node
import pytest
from login_node import Login


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    return login_node.make(tmp_path, monkeypatch)
