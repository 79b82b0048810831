"""The list of shards in a file beside them, so that nobody has to open all of them to know what there is.

JSON: {"shards": [{"url": "train-000.tar", "samples": 1000, "nbytes": 41943040}, ...]}. A url without a scheme is the
path from the index's folder, wherever that is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paceline.errors import UsageError
from paceline.extras import needed
from paceline.streams.cache import is_remote
from paceline.streams.shards import Open, Shard, in_folder
from paceline.tracebacks import describe


def read_index(where: str | Path) -> list[Shard]:
    """Read a list of shards.

    Args:
        where: its path, or any url that fsspec knows.

    Raises:
        UsageError: it cannot be read, or is no such list.
    """
    url = str(where) if is_remote(str(where)) else str(Path(where).absolute())
    try:
        text = _remote_text(url) if is_remote(url) else Path(url).read_text(encoding="utf-8")
    except UsageError:
        raise
    except Exception as error:  # whatever a file system of fsspec raises
        raise UsageError(f"index {url!r} cannot be read: {describe(error)}") from error
    try:
        shards = [_shard(row) for row in json.loads(text)["shards"]]
    except (ValueError, TypeError, KeyError) as error:
        expected = 'expected {"shards": [{"url": "a.tar", "samples": 1000}, ...]}'
        raise UsageError(f"index {url!r} is no list of shards ({describe(error)}): {expected}") from error
    return in_folder(shards, url.rpartition("/")[0] or ".")


def write_index(path: Path, shards: Sequence[Path], open: Open, base: str = "") -> list[Shard]:  # noqa: A002
    """Open shards of this machine one after another, and list them in a file.

    Args:
        path: of the index, which is written whole or not at all.
        shards: in the order of their samples' numbers.
        open: as in Shards.
        base: the url that the shards will have, but for their names; empty: they stay where they are.

    Returns:
        What read_index gives.

    Raises:
        UsageError: one cannot be opened, or is empty.
    """
    rows = []
    for shard in shards:
        try:
            samples = len(open(shard))
        except Exception as error:
            raise UsageError(f"shard {str(shard)!r} cannot be opened: {describe(error)}") from error
        if not samples:
            raise UsageError(f"shard {str(shard)!r} has no samples: expected at least one")
        url = f"{base.rstrip('/')}/{shard.name}" if base else os.path.relpath(shard, path.parent)
        rows.append({"url": url, "samples": samples, "nbytes": shard.stat().st_size})
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({"shards": rows}, indent=1), encoding="utf-8")
    part.replace(path)
    return read_index(path)


def _remote_text(url: str) -> str:
    with needed("fsspec", "fsspec", f"index {url!r}").open(url, "rt", encoding="utf-8") as file:
        text: str = file.read()
    return text


def _shard(row: Any) -> Shard:
    nbytes = row.get("nbytes")
    return Shard(str(row["url"]), int(row["samples"]), None if nbytes is None else int(nbytes))
