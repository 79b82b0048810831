"""What the run is doing: told by the server, asked for and shown by `paceline status` and `paceline run`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paceline.access import OPEN, Access
from paceline.coordination.snapshot import WAITS_MUCH, Snapshot, WorkerSnapshot
from paceline.protos import coordinator_pb2 as pb
from paceline.server.asking import ask
from paceline.server.totals import Totals
from paceline.settings import RunSettings
from paceline.version import __version__

# ---- the server's side ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What status tells beside coordinator and sums.

    Attributes:
        rounds: planned in all; 0 where a goal decides.
        elapsed_s: since the server started.
        metrics: of the last evaluation.
    """

    rounds: int
    elapsed_s: float
    run_dir: str
    metrics: Mapping[str, float] = field(default_factory=dict)


def status_response(
    settings: RunSettings, totals: Totals, snapshot: Snapshot, situation: Situation
) -> pb.StatusResponse:
    """Build the answer to a Status call."""
    return pb.StatusResponse(
        job=settings.job,
        policy=settings.policy,
        state=snapshot.state,
        situation=snapshot.situation,
        round=snapshot.round,
        rounds=situation.rounds,
        version=snapshot.version,
        loss=totals.losses[-1] if totals.losses else None,
        elapsed_s=situation.elapsed_s,
        last_round_s=totals.seconds[-1] if totals.seconds else 0.0,
        decision=snapshot.reason,
        workers=[_worker(worker, totals) for worker in snapshot.workers],
        metrics=dict(situation.metrics),
        run_dir=situation.run_dir,
        means=totals.latest_means,
        tasks_used=totals.sum.used,
        tasks_wasted=totals.sum.wasted,
        worker_s=totals.worker_s,
        micro_batch=settings.micro_batch,
        cost=totals.cost(settings.price),
        wasted_worker_s=totals.sum.wasted_s,
        seed=str(settings.seed),
        package_version=__version__,
        tasks_per_round=settings.tasks,
        checkpoint=totals.saves.version,
        checkpoint_age_s=None if totals.saves.at_s is None else situation.elapsed_s - totals.saves.at_s,
    )


def _worker(worker: WorkerSnapshot, totals: Totals) -> pb.WorkerStatus:
    sums = totals.workers.get(worker.name)
    return pb.WorkerStatus(
        name=worker.name,
        state=worker.state,
        device=worker.device,
        address=worker.address,
        tasks_done=worker.tasks_done,
        mean_task_s=worker.mean_task_s,
        radius_s=worker.radius_s,
        allocation=worker.allocation,
        pace=worker.pace or 0.0,
        busy_s=worker.busy_s,
        note=worker.note,
        data_share=sums.data_share if sums is not None else 0.0,
    )


# ---- the asking side -----------------------------------------------------------------------------------------------


def fetch_status(address: str, timeout_s: float = 5.0, access: Access = OPEN) -> pb.StatusResponse:
    """Ask the server at HOST:PORT.

    Raises:
        UnavailableError: it cannot be reached, or does not answer within `timeout_s`.
        RefusedError: it does not let the asker see it.
    """
    answer: pb.StatusResponse = ask(
        address, lambda stub, **call: stub.Status(pb.StatusRequest(), **call), timeout_s, access
    )
    return answer


def status_to_dict(response: pb.StatusResponse) -> dict[str, Any]:
    """Give the answer as JSON values: the fields of StatusResponse by name, null where not known or not finite."""
    document = _fields(response)
    document["metrics"] = {name: _number(value) for name, value in sorted(response.metrics.items())}
    document["means"] = {name: _number(value) for name, value in sorted(response.means.items())}
    document["workers"] = [_fields(worker) for worker in response.workers]
    return document


def _fields(message: pb.StatusResponse | pb.WorkerStatus) -> dict[str, Any]:
    known = {field.name: not field.has_presence or message.HasField(field.name) for field in message.DESCRIPTOR.fields}
    return {name: _number(getattr(message, name)) if there else None for name, there in known.items()}


def _number(value: Any) -> Any:
    """Give a value that JSON can say: it has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render_status(response: pb.StatusResponse) -> RenderableType:
    """Show the answer to a person: the run, its workers, and the last decision in words."""
    rows: list[RenderableType] = [Text(_headline(response), style="bold")]
    if response.situation:
        rows.append(Text(response.situation))
    rows.append(Text(_sums(response)))
    rows.append(_workers_table(response) if response.workers else Text("no workers yet"))
    rows += [Text(f"{worker.name} {worker.note}") for worker in response.workers if worker.note]
    rows += [
        Text(f"{worker.name} waits for data {worker.data_share:.0%} of the time")
        for worker in response.workers
        if worker.data_share >= WAITS_MUCH
    ]
    if response.decision:
        rows.append(Text(f"last decision: {response.decision}"))
    return Group(*rows)


def _headline(response: pb.StatusResponse) -> str:
    of = f" of {response.rounds}" if response.rounds else ""
    loss = f", loss {response.loss:.4g}" if response.HasField("loss") else ""
    return (
        f"{response.job}, {response.policy}: {response.state}, round {response.round}{of}, "
        f"version {response.version}{loss}, {response.elapsed_s:.0f} s"
    )


def _sums(response: pb.StatusResponse) -> str:
    means = "".join(f", {name} {value:.4g}" for name, value in sorted(response.means.items()))
    metrics = "".join(f", {name} {value:.4g}" for name, value in sorted(response.metrics.items()))
    saved = f"; checkpoint of round {response.checkpoint}" if response.checkpoint else ""
    if response.HasField("checkpoint_age_s"):
        saved += f", {response.checkpoint_age_s:.0f} s old"
    return (
        f"tasks {response.tasks_used} used, {response.tasks_wasted} wasted; "
        f"worker seconds {response.worker_s:.1f}, of them {response.wasted_worker_s:.1f} wasted; "
        f"last round {response.last_round_s:.3g} s{means}{metrics}{saved}"
    )


def _workers_table(response: pb.StatusResponse) -> Table:
    table = Table("worker", "state", box=box.SIMPLE_HEAD)
    for heading in ("s/task", "+- radius", "tasks now", "tasks done", "busy s"):
        table.add_column(heading, justify="right")
    table.add_column("device")
    table.add_column("address")
    for worker in response.workers:
        table.add_row(
            worker.name,
            worker.state,
            f"{worker.mean_task_s:.4g}" if worker.HasField("mean_task_s") else "-",
            f"{worker.radius_s:.2g}" if worker.HasField("radius_s") else "-",
            str(worker.allocation),
            str(worker.tasks_done),
            f"{worker.busy_s:.1f}",
            worker.device,
            worker.address,
        )
    return table
