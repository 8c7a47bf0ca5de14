"""Where tests find things: the clone, the golden files, real photographs that may lie beside the clone."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
PHOTOGRAPHS = ROOT.parent / "shared" / "data"  # not ours: a test that needs them is skipped without
