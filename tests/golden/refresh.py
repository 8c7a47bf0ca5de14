"""`make golden`: write again the files that our own code makes. Look at the difference before you commit."""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from test_report import golden_report  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = golden_report(Path(folder))
    for name, text in texts.items():
        file = HERE / name
        changed = not file.exists() or file.read_text() != text
        file.write_text(text)
        print(f"{file.name}: {'changed' if changed else 'as before'}")


main()
