"""Says whether a past run's parameters are what its ledger tells: plays the run again and judges what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from paceline.coordination.effects import Outcome
from paceline.server.past_run import PastRun
from paceline.server.replay import Difference, Replay

# Measured: rounding moves a small CNN's weights by less than this in 20 rounds. It adds up as in a random walk where
# training is stable; where it is not (chaos), no bound would hold.
FAST_TOLERANCE = 2e-5


class Verdict(Enum):
    """What a replay shows."""

    BIT_EQUAL = "bit-equal"
    CLOSE = "close"
    """With fast sums, which promise no bits: within the tolerance of the saved weights."""
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a replay showed.

    Attributes:
        rounds, tasks: made again, the differing round not counted.
        fingerprint: of the parameters that they gave.
        difference: the first; None where there is none.
        tensors: those that differ from the saved weights, by the norm of the difference over their norm; None where
            they were not compared.
        tolerance: of CLOSE.
        remarks: what else is to be known, one line each.
    """

    verdict: Verdict
    rounds: int
    tasks: int
    fingerprint: str
    difference: Difference | None
    tensors: Mapping[str, float] | None
    tolerance: float
    remarks: tuple[str, ...]


def judge(run: PastRun, replay: Replay, on_round: Callable[[int], None] = lambda number: None) -> Judgement:
    """Play all committed rounds again and judge; with exact sums up to the first that differs.

    Args:
        on_round: hears the number of each round that was made again.

    Raises:
        UsageError: the ledger is damaged.
    """
    fast = run.beginning.settings.sums == "fast"
    same_rounds, same_tasks = 0, 0
    for record, leases in run.each_round():
        went_on = replay.play(record, leases)
        if replay.difference is None:
            same_rounds, same_tasks = record.round, same_tasks + record.tasks_used
        elif not went_on or not fast:
            break
        on_round(record.round)
    complete = replay.version == run.rounds and (replay.difference is None or fast)
    tensors = replay.compare_with(run.model) if complete and run.model is not None else None
    tolerance = FAST_TOLERANCE * math.sqrt(max(run.rounds, 1))
    difference = replay.difference or _of_saved(run, tensors)
    verdict = Verdict.DIFFERS
    if difference is None:
        verdict = Verdict.BIT_EQUAL
    elif fast and replay.difference and tensors is not None and max(tensors.values(), default=0.0) <= tolerance:
        verdict = Verdict.CLOSE
    return Judgement(
        verdict=verdict,
        rounds=same_rounds,
        tasks=same_tasks,
        fingerprint=replay.fingerprint(),
        difference=difference,
        tensors=tensors,
        tolerance=tolerance,
        remarks=tuple(_remarks(run, replay, verdict, tensors)),
    )


def _of_saved(run: PastRun, tensors: Mapping[str, float] | None) -> Difference | None:
    """Tell of saved weights that the last committed round did not make; after a failed update they may be others."""
    if not tensors or run.outcome is Outcome.FAILED:
        return None
    names = ", ".join(list(tensors)[:3])
    more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return Difference(round=run.rounds, what=f"every round is bit-equal, but the saved weights differ in {names}{more}")


def _remarks(run: PastRun, replay: Replay, verdict: Verdict, tensors: Mapping[str, float] | None) -> list[str]:
    remarks = []
    if len(run.lives) > 1:
        places = ", ".join(str(life.resumed_from) for life in run.lives[1:])
        remarks.append(f"the run was resumed after round {places}: what was lost there and done again counts once")
    if run.outcome is None:
        remarks.append("the run goes on, or its server was killed: replayed up to its last committed round")
    elif run.model is None:
        remarks.append("the run left no weights to compare with")
    if run.outcome is Outcome.FAILED and tensors:
        remarks.append("the saved weights are not those of the last committed round: the run failed in an update")
    others = sorted(device for device in run.devices if device.partition(":")[0] != replay.device.type)
    if verdict is not Verdict.BIT_EQUAL and others:
        remarks.append(
            f"workers computed on {', '.join(others)}, the replay on {replay.device}: these round differently"
        )
    return remarks
