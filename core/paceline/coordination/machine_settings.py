"""What the coordinator is told at its start."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """Numbers that rule the coordination; times in seconds.

    Attributes:
        tasks: B, tasks per round, as policies are told.
        rounds: the run ends after this many; None: when stopped.
        min_workers: round 1 waits for this many ready workers, or for as many as the policy or the parts need.
        parts: the data belong to workers in so many parts, one worker each; 0: they do not.
        life: of the server; lease ids of different lives differ.
        lost_after_s: a closed session that is not resumed within this time makes its worker lost.
        silent_after_s: so does silence of this length. Longer than any hold of the interpreter's lock by computing.
        progress_s, progress_factor: and no progress for max(progress_s, progress_factor * learned task seconds);
            while nothing is learned, a warning only.
        probe_s: how long the holder of a name has to answer when a newcomer claims it.
        aside_s: first time-out of a worker that fails what others manage; doubles each time, up to aside_max_s.
        strikes: after every so many refused contributions its worker is put aside for refused_aside_s, which doubles
            each time, up to refused_aside_max_s.
        most_samples: of one task.
        clock_slack_s: so much more seconds than have passed may a worker claim.
        attempts: so often is one task tried before the run fails.
        checkpoint_rounds, checkpoint_s: a version is saved so long after the last that was: the first that comes.
        idle_exit_s: without any worker for so long the run is stopped.
        validation_tasks: that workers measure a version by; 0: they measure none.
        validate_every: rounds between such measurements; 0: only when all rounds are done.
        radius_constant: factor of ata-empirical's confidence radius as shown for every policy.
    """

    tasks: int
    rounds: int | None = None
    min_workers: int = 1
    parts: int = 0
    life: int = 1
    lost_after_s: float = 1.0
    silent_after_s: float = 10.0
    progress_s: float = 30.0
    progress_factor: float = 8.0
    probe_s: float = 2.0
    aside_s: float = 1.0
    aside_max_s: float = 300.0
    strikes: int = 3
    refused_aside_s: float = 60.0
    refused_aside_max_s: float = 3600.0
    most_samples: float = math.inf
    clock_slack_s: float = 0.001
    attempts: int = 3
    checkpoint_rounds: int | None = None
    checkpoint_s: float = math.inf
    idle_exit_s: float = math.inf
    validation_tasks: int = 0
    validate_every: int = 0
    radius_constant: float = 2.0
