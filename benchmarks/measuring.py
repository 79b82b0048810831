"""What the benchmarks of whole runs share: starting the command, reading its summary and ledger, writing JSON."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paceline.coordination.effects import RoundRecord
from paceline.server.ledger_reader import LedgerReader

ROOT = Path(__file__).parents[1]


def train(job: str, *args: str, read: Callable[[LedgerReader], Any] | None = None) -> tuple[dict[str, Any], Any]:
    """Train with `paceline run` in a folder of its own.

    Args:
        read: is given the ledger before the folder goes.

    Returns:
        The summary, and what `read` gave.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "paceline.cli", "run", job, "--json", str(out)]
        command += ["--run-dir", str(Path(folder) / "run"), *args]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        with LedgerReader(Path(folder) / "run" / "ledger.sqlite") as ledger:
            return json.loads(out.read_text()), read(ledger) if read else None


def rounds_of(ledger: LedgerReader) -> list[RoundRecord]:
    """Give the rounds of a run."""
    return ledger.rounds()


def write(result: dict[str, Any], path: Path | None) -> None:
    """Print a result as JSON, and keep it where asked."""
    text = json.dumps(result, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser with the flags that all have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there too")
    return made


def progress(text: str) -> None:
    """Say what is being measured."""
    print(text, file=sys.stderr, flush=True)
