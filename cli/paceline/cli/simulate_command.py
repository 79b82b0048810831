"""What `paceline simulate` can be told, and the checks that can be made before anything is computed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from paceline.errors import UsageError

CMAB = "cmab"

Count = Annotated[int, Field(ge=1)]


class SimulateCommand(BaseModel):
    """What `paceline simulate` is told; None where the preset says it.

    Attributes:
        law, means, policy, prior: as written on the command line.
        engine: "machine": every policy on the coordinator itself.
        machine_rounds: the most rounds that are simulated there.
        data: folder with images for the CNN's loss curve; `curve_rounds`: how long that is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str
    workers: int | None = Field(default=None, ge=1, le=1_000_000)
    # A round's tasks are done one by one.
    tasks: int | None = Field(default=None, ge=1, le=1_000_000)
    rounds: int | None = Field(default=None, ge=1)
    law: str | None = None
    means: str | None = None
    policy: str | None = None
    constants: str | None = None
    prior: str | None = None
    k_start: Count | None = None
    k_step: Count = 1
    switch_at: str | None = None
    staleness: Count | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    repeats: Count | None = None
    engine: Literal["compiled", "machine"] = "compiled"
    machine_rounds: Count = 2000
    data: Path | None = None
    curve_rounds: Count = 300
    json_file: Path | None = None
    plot: Path | None = None


def require_extra(*modules: str, command: str = "simulate") -> None:
    """Refuse to begin without what the extra `sim` installs.

    Raises:
        UsageError: one of the modules is missing; says how to install it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"{command} needs {module}, which is not installed: pip install 'paceline[sim]'")


def check_plot_folder(folder: Path) -> None:
    """Make the folder of `--plot`, if it is not there, and see whether files can be written to it.

    Raises:
        UsageError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".paceline-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = (error.strerror or "error").lower()
        raise UsageError(f"--plot is {str(folder)!r}, which cannot be written: {why}; expected a folder") from None
