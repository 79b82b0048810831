"""The coordinator on a virtual clock: simulated workers, faults as data, and the record of what was really applied."""

from paceline.simulation.driver import Simulation, Steppable, World
from paceline.simulation.faults import (
    CorruptPush,
    CutPush,
    CutSession,
    Drain,
    FailTask,
    FailUpdate,
    Fault,
    Freeze,
    HangTask,
    Kill,
    LoseAnswer,
    Pause,
    SecondProcess,
    Stop,
)
from paceline.simulation.model import Applied, SimulatedModel, SimulationError, Update
from paceline.simulation.result import SimulationResult
from paceline.simulation.surroundings import SimulatedWorker

__all__ = [
    "Applied",
    "CorruptPush",
    "CutPush",
    "CutSession",
    "Drain",
    "FailTask",
    "FailUpdate",
    "Fault",
    "Freeze",
    "HangTask",
    "Kill",
    "LoseAnswer",
    "Pause",
    "SecondProcess",
    "SimulatedModel",
    "SimulatedWorker",
    "Simulation",
    "SimulationError",
    "SimulationResult",
    "Steppable",
    "Stop",
    "Update",
    "World",
]
