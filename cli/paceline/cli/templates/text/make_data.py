"""Makes a text to begin with: Python's own help pages. Your own *.txt files go into the same folder."""

import sys
from pathlib import Path
from pydoc_data.topics import topics


def main(folder: Path) -> None:
    """Write the text, unless there are some."""
    if any(folder.glob("*.txt")):
        sys.exit(f"{folder} has texts already: nothing was written")
    folder.mkdir(exist_ok=True)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    (folder / "python-help.txt").write_text(text, encoding="utf-8")
    print(f"{folder / 'python-help.txt'}: {len(text)} characters")


if __name__ == "__main__":
    main(Path(__file__).parent / "data")
