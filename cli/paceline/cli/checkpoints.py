"""What `paceline checkpoint ls`, `verify` and `export` do and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paceline.errors import CheckpointError, RunFailedError, UsageError
from paceline.server.best import BEST, Best, read_best
from paceline.server.checkpoint_export import checkpoints_of, export_best, export_checkpoint
from paceline.server.checkpoint_reader import CheckpointInfo

_UNITS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0))


def show(run: Path, as_json: bool) -> int:
    """List a run's checkpoints.

    Raises:
        UsageError: no run is there.
        CheckpointError: their folder cannot be read.
    """
    reader = checkpoints_of(run)
    infos, foreign, (best, fault) = reader.list(), reader.foreign(), _best_of(run)
    if as_json:
        _print_json(
            {
                "run": str(run),
                "checkpoints": [_document(info, info.fault) for info in infos],
                "best": _best_document(best, fault),
                "foreign": list(foreign),
            }
        )
        return 0
    if infos:
        _print_table(infos, best)
    else:
        _say(f"run {str(run)!r} has no checkpoints")
    if best is not None:
        _say(f"best: round {best.version}, {best.metric} {best.value:.6g} ({BEST})")
    if fault:
        _say(f"damaged: {fault}")
    for name in foreign:
        _say(f"no checkpoint, left alone: {name}")
    return 0


def verify_all(run: Path, as_json: bool) -> int:
    """Check everything and say what is damaged.

    Raises:
        UsageError: no run is there, or it has no checkpoints.
        CheckpointError: their folder cannot be read.
    """
    reader = checkpoints_of(run)
    verified = [(info, reader.verify(info)) for info in reader.list()]
    # A server that trains may have removed some meanwhile.
    found = [(info, fault) for info, fault in verified if info.path.exists()]
    best, best_fault = _best_of(run)
    if not found and best is None and not best_fault:
        raise UsageError(f"run {str(run)!r} has no checkpoints")
    damaged = bool(best_fault) or any(fault for _, fault in found)
    if as_json:
        checkpoints = [_document(info, fault) for info, fault in found]
        _print_json(
            {
                "run": str(run),
                "damaged": damaged,
                "checkpoints": checkpoints,
                "best": _best_document(best, best_fault),
            }
        )
    else:
        for info, fault in found:
            _say(f"round {info.version}: {f'damaged: {fault}' if fault else f'whole, {_size(info.nbytes)}'}")
        if best is not None or best_fault:
            _say(f"best: {f'damaged: {best_fault}' if best is None else f'whole, round {best.version}'}")
    return RunFailedError.exit_code if damaged else 0


def export_weights(run: Path, of_round: int | None, best: bool, out: Path, as_json: bool) -> int:
    """Write weights into a file of their own, and say which they are.

    Raises:
        UsageError: no run, no such checkpoint, or a file that exists or cannot be written.
        CheckpointError: the checkpoint is damaged.
    """
    done = export_best(run, out) if best else export_checkpoint(run, of_round, out)
    if as_json:
        document = {"round": done.version, "file": str(done.path), "bytes": done.nbytes}
        _print_json(document | {"fingerprint": done.fingerprint})
    else:
        known = (
            f"fingerprint {done.fingerprint}"
            if done.fingerprint
            else "no fingerprint: the model makes some buffers itself"
        )
        _say(f"round {done.version}: {_size(done.nbytes)} written to {str(done.path)!r}; {known}")
    return 0


def age(seconds: float) -> str:
    """Say how long ago something was, in its largest unit."""
    for unit, length_s in _UNITS:
        if seconds >= length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def _best_of(run: Path) -> tuple[Best | None, str]:
    try:
        return read_best(run), ""
    except CheckpointError as error:
        return None, str(error)


def _document(info: CheckpointInfo, fault: str) -> dict[str, Any]:
    return {
        "round": info.version,
        "path": str(info.path),
        "saved_at": info.saved_at.isoformat() if info.saved_at else None,
        "bytes": info.nbytes,
        "fault": fault or None,
    }


def _best_document(best: Best | None, fault: str) -> dict[str, Any] | None:
    if best is None:
        return {"fault": fault} if fault else None
    return {
        "round": best.version,
        "metric": best.metric,
        "value": best.value,
        "fingerprint": best.fingerprint,
        "fault": None,
    }


def _print_table(infos: Sequence[CheckpointInfo], best: Best | None) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("round", "age", "size"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    now = datetime.now(tz=UTC)
    for info in infos:
        since = age((now - info.saved_at).total_seconds()) if info.saved_at else "-"
        is_best = best is not None and best.version == info.version
        note = f"damaged: {info.fault}" if info.fault else "best" if is_best else ""
        table.add_row(str(info.version), since, _size(info.nbytes), escape(note))
    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own; a damaged one's file and reason need this much.
        console = Console(width=200)
    console.print(table)


def _size(nbytes: int) -> str:
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= length:
            return f"{nbytes / length:.1f} {unit}"
    return f"{nbytes} bytes"


def _print_json(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _say(line: str) -> None:
    sys.stdout.write(f"paceline: {line}\n")
