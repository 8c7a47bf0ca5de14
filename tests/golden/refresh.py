"""`make golden`: write again the golden files that our own code makes. Look at the difference afterwards."""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / part) for part in (".", "cluster", "data", "report", "train")]

import test_loop  # noqa: E402
import test_order  # noqa: E402
import test_recipe_smoke  # noqa: E402
import test_recipes  # noqa: E402
import test_report  # noqa: E402
import test_submit  # noqa: E402
import tiny  # noqa: E402

# Not here, since they are facts and not our output: complexity.json, ilsvrc2012_wnids.txt.
with tempfile.TemporaryDirectory() as folder:
    TEXTS = {
        "order.json": json.dumps(test_order.golden(), indent=1) + "\n",
        "recipes.json": json.dumps(test_recipes.golden_recipes(), indent=1) + "\n",
        "smoke.json": json.dumps(test_recipe_smoke.golden_curves(Path(folder)), indent=1) + "\n",
        "loss.json": json.dumps(
            test_loop.golden_losses(tiny.make(Path(folder)), Path(folder) / "run"), indent=1
        )
        + "\n",
        **test_report.golden_report(Path(folder)),
        **test_submit.golden_scripts(),
    }
for name, text in TEXTS.items():
    file = HERE / name
    changed = not file.exists() or file.read_text() != text
    file.write_text(text)
    print(f"{name}: {'changed' if changed else 'as before'}")
