"""The best model of a run: best.safetensors and what best.json says of it.

Two files cannot be replaced at once. So best.json names two models, the new one and the one before, and is replaced
first: whenever the process dies, best.safetensors is one of the two, and its checksum says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from paceline.errors import CheckpointError
from paceline.server.durable import Checksum, checksum, seal, sync, unseal, write_synced
from paceline.statefile import Json

FORMAT = 1  # of best.json
BEST = "best.safetensors"
BEST_MARK = "best.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A model that was the best so far.

    Attributes:
        version: of the model.
        metric, value: of evaluate(), in which it was the best.
        fingerprint: of the model.
    """

    version: int
    metric: str
    value: float
    fingerprint: str


def save_best(run_dir: Path, best: Best, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace the best model.

    Args:
        weights: by the names of the model's state; a private copy.

    Raises:
        CheckpointError: it could not be written; the one before stays the best.
    """
    path, mark = run_dir / BEST, run_dir / BEST_MARK
    # Fixed names: what a killed process left is written over.
    new_path, new_mark = run_dir / f".{BEST}.tmp", run_dir / f".{BEST_MARK}.tmp"
    try:
        try:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
            save_file(plain, new_path, metadata={"format": "pt"})
            new_path.chmod(0o644)
            sync(new_path)
            document = _entry(best, checksum(new_path)) | {"format": FORMAT, "previous": _present(run_dir)}
            new_mark.unlink(missing_ok=True)
            write_synced(new_mark, seal(document))
            new_mark.replace(mark)
            sync(run_dir)
            new_path.replace(path)
            sync(run_dir)
        except BaseException:
            new_path.unlink(missing_ok=True)
            new_mark.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{str(path)!r} cannot be written: {error}") from error


def read_best(run_dir: Path) -> Best | None:
    """Say what is the best model of a run, after its checksum was compared; None: none was saved.

    Raises:
        CheckpointError: a file is damaged: file, what was expected and what was found.
    """
    found = best_with_checksum(run_dir)
    return found[0] if found else None


def best_with_checksum(run_dir: Path) -> tuple[Best, Checksum] | None:
    """Say what best.safetensors is: see read_best."""
    path = run_dir / BEST
    entries = _entries(run_dir / BEST_MARK)
    while True:
        if not path.exists() and len(entries) < 2:
            return None
        try:
            found = checksum(path)
        except OSError as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        for best, expected in entries:
            if expected == found:
                return best, expected
        before, entries = entries, _entries(run_dir / BEST_MARK)
        if entries == before:  # or a server has replaced both meanwhile
            break
    known = " or ".join(f"{expected.nbytes} with {expected.crc32c}" for _, expected in entries) or "its best.json"
    what = f"{found.nbytes} bytes with checksum {found.crc32c}"
    raise CheckpointError(f"{str(path)!r} has {what}: expected {known}")


def _present(run_dir: Path) -> Json:
    try:
        present = best_with_checksum(run_dir)
    except CheckpointError:
        return None  # a damaged one is nothing to fall back on
    return _entry(*present) if present else None


def _entry(best: Best, found: Checksum) -> dict[str, Json]:
    return {
        "version": best.version,
        "metric": best.metric,
        "value": best.value,
        "fingerprint": best.fingerprint,
        "bytes": found.nbytes,
        "crc32c": found.crc32c,
    }


def _entries(path: Path) -> list[tuple[Best, Checksum]]:
    """Read the models that best.json names, the new one first; none if there is no such file."""
    try:
        document = unseal(path.read_bytes())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise CheckpointError(f"has another format: this paceline reads {FORMAT}")
        return [_read(entry) for entry in (document, document["previous"]) if entry is not None]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is no best model's: {error!r}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r} {error}") from error


def _read(entry: Json) -> tuple[Best, Checksum]:
    if not isinstance(entry, dict):
        raise TypeError(f"an entry is {entry!r}")
    version, value, nbytes, crc = entry["version"], entry["value"], entry["bytes"], entry["crc32c"]
    if (
        type(version) is not int
        or not isinstance(value, int | float)
        or type(nbytes) is not int
        or type(crc) is not int
    ):
        raise TypeError("an entry has text for a number")
    best = Best(version=version, metric=str(entry["metric"]), value=float(value), fingerprint=str(entry["fingerprint"]))
    return best, Checksum(nbytes, crc)
