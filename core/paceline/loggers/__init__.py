"""Loggers: callbacks that write what a run tells into the formats of other tools, through those tools' own libraries.

A library is imported when a logger is made; one that is missing is a UsageError that names the extra to install.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paceline.callbacks import Callback
from paceline.errors import UsageError
from paceline.nearest import did_you_mean


def _csv() -> Callback:
    from paceline.loggers.csv_file import CsvLogger

    return CsvLogger()


def _tensorboard() -> Callback:
    from paceline.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger()


def _wandb() -> Callback:
    from paceline.loggers.wandb import WandbLogger

    return WandbLogger()


def _mlflow() -> Callback:
    from paceline.loggers.mlflow import MlflowLogger

    return MlflowLogger()


LOGGERS: dict[str, Callable[[], Callback]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def check_loggers(names: Sequence[str]) -> tuple[str, ...]:
    """Give names of loggers, each once.

    Raises:
        UsageError: there is no such logger.
    """
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"log is {name!r}: expected {', '.join(LOGGERS)}{did_you_mean(name, [*LOGGERS])}")
    return tuple(dict.fromkeys(names))


def make_loggers(names: Sequence[str]) -> list[Callback]:
    """Make the loggers of these names.

    Raises:
        UsageError: the library of one is not installed.
    """
    return [LOGGERS[name]() for name in names]
