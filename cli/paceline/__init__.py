"""Trains one PyTorch model on machines that are not alike: what a notebook or a script imports.

The package lies in five folders (core, server, worker, protos, cli), which an install from the sources puts on the path
one by one and a wheel lays together. A regular package is looked for in the folder of its `__init__.py` alone, so the
others are added here. The names below are imported once they are asked for: torch and gRPC take seconds.
"""

from __future__ import annotations

import os
import sys

# Not typing's, which takes ten milliseconds in which a Ctrl-C of the command would end in a traceback; nor pkgutil's
# extend_path, for the same reason. In place: the package's spec holds the same list, and tools ask the spec.
TYPE_CHECKING = False
for _entry in sys.path:
    _portion = os.path.join(_entry, "paceline")  # noqa: PTH118  # pathlib has its price too
    if _portion not in __path__ and os.path.isdir(_portion):  # noqa: PTH112
        __path__.append(_portion)

if TYPE_CHECKING:
    from paceline.api.loading import load
    from paceline.api.result import Result
    from paceline.api.train import train
    from paceline.callbacks import Callback
    from paceline.job import Job
    from paceline.version import __version__
else:
    _HOMES = {
        "Callback": "paceline.callbacks",
        "Job": "paceline.job",
        "Result": "paceline.api.result",
        "__version__": "paceline.version",
        "load": "paceline.api.loading",
        "train": "paceline.api.train",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *_HOMES])


__all__ = ["Callback", "Job", "Result", "__version__", "load", "train"]
