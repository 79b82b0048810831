"""Deterministic coordination: events in, effects out. No I/O, no clock, no torch."""

from __future__ import annotations

from paceline.coordination.machine import Machine
from paceline.coordination.machine_settings import MachineSettings
from paceline.coordination.plan import Count, Plan, Policy, Quota, View, WorkerView
from paceline.coordination.snapshot import Snapshot, WorkerSnapshot
from paceline.coordination.state import MachineError

__all__ = [
    "Count",
    "Machine",
    "MachineError",
    "MachineSettings",
    "Plan",
    "Policy",
    "Quota",
    "Snapshot",
    "View",
    "WorkerSnapshot",
    "WorkerView",
]
