"""Lets the model of a run write: python write.py [RUN [BEGINNING]]; without a run, the newest one in runs."""

import sys
from pathlib import Path

import torch
from job import CONTEXT, Text

import paceline

LENGTH = 300


def main(run: Path, beginning: str) -> None:
    """Draw one character after another from what the model expects."""
    model = paceline.load(run)
    job = Text()
    job.data = Path(__file__).parent / "data"
    alphabet, _ = job.texts()
    symbols = [alphabet.index(character) for character in beginning if character in alphabet] or [0]
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(LENGTH):
            logits = model(torch.tensor([symbols[-CONTEXT:]]))[0, -1]
            symbols.append(int(torch.multinomial(logits.softmax(0), 1)))
    print("".join(alphabet[symbol] for symbol in symbols))


if __name__ == "__main__":
    runs = sorted(Path("runs").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if len(sys.argv) < 2 and not runs:
        sys.exit("there is no finished run in runs: paceline run {{job}} makes one")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else runs[-1].parent, sys.argv[2] if len(sys.argv) > 2 else "The ")
