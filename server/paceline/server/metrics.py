"""What Prometheus is told, over HTTP on `--metrics-port`.

Nothing is counted here: a scrape copies the sums that `Totals` keeps anyway and a snapshot of the coordinator, both on
the event loop that owns them, so that rounds pay nothing and every scrape is a consistent cut. docs/metrics.md lists
the metrics.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from wsgiref.simple_server import WSGIServer

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from paceline.allocation import ORACLE, expected_rounds
from paceline.coordination.snapshot import AWAY, Snapshot, WorkerSnapshot
from paceline.errors import UsageError
from paceline.server.onloop import LoopBusyError, on_loop
from paceline.server.totals import OTHER, ROUND_BUCKETS_S, STALENESS_BUCKETS, Totals, WorkerTotals, price_of
from paceline.server.traffic import Traffic
from paceline.version import __version__

# So many workers have labels of their own; the sums of all further ones are told as worker="other".
WORKER_LABELS = 1000
SCRAPE_LIMIT_S = 5.0


class Metrics(Collector):
    """Serves metrics. `start` and `close` belong to the event loop that owns totals and coordinator.

    Args:
        totals: sums of the run.
        snapshot: of the coordinator; called on the event loop.
        traffic: bytes in and out.
        policy: name of the policy, a label of paceline_build_info.

    Attributes:
        now: gives seconds on the server's clock.
        waiting_rows: of the ledger.
        prices: of an hour of each worker, see settings.RunSettings.price.
        tasks: of a round; 0: nothing is said of the oracle's.
        evaluation: metrics of the latest.
    """

    def __init__(self, totals: Totals, snapshot: Callable[[], Snapshot], traffic: Traffic, policy: str) -> None:
        self.now: Callable[[], float] = lambda: 0.0
        self.waiting_rows: Callable[[], int] = lambda: 0
        self.prices: Mapping[str, float] | None = None
        self.tasks = 0
        self.evaluation: Mapping[str, float] = {}
        self._totals = totals
        self._snapshot = snapshot
        self._traffic = traffic
        self._policy = policy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> int:
        """Begin to serve; `port` 0 takes a free one.

        Returns:
            the port.

        Raises:
            UsageError: the port is taken or not ours to take.
        """
        self._loop = asyncio.get_running_loop()
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise UsageError(f"--metrics-port {port} on {host} cannot be used: {error.strerror}") from error
        return self._server.server_port

    def close(self) -> None:
        """Stop to serve; a scrape in progress gets what it can."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def collect(self) -> Iterable[Metric]:
        """Give all metrics; called by the HTTP server, on a thread of its own."""
        if self._loop is None:
            return ()
        try:
            return on_loop(self._loop, lambda: list(self._families()), SCRAPE_LIMIT_S)
        except LoopBusyError:  # the scrape shows a gap, the run goes on
            return ()

    def _families(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from self._run_metrics(snapshot)
        yield from _checkpoint_metrics(self._totals, self.now())
        yield GaugeMetricFamily("paceline_ledger_waiting_rows", "Rows not written yet.", value=self.waiting_rows())
        yield from _round_metrics(self._totals)
        age = "Since the latest round closed; before the first one, since the server began."
        since_s = max(0.0, self.now() - self._totals.last_closed_s)
        yield GaugeMetricFamily("paceline_round_age_seconds", age, value=since_s)
        yield from _worker_metrics(self._totals)
        yield from _cost_metrics(self._totals, self.prices)
        measuring = "Worker seconds in which versions were measured."
        yield CounterMetricFamily(
            "paceline_validation_worker_seconds", measuring, value=self._totals.validation.worker_s
        )
        yield from _learned_metrics(snapshot.workers)
        yield from _oracle_metrics(snapshot.workers, self.tasks)

    def _run_metrics(self, snapshot: Snapshot) -> Iterator[Metric]:
        totals = self._totals
        info = GaugeMetricFamily("paceline_build_info", "Always 1.", labels=["version", "policy"])
        info.add_metric([__version__, self._policy], 1)
        yield info
        yield GaugeMetricFamily("paceline_version", "Version of the model: updates made.", value=totals.version)
        if totals.losses:
            yield GaugeMetricFamily("paceline_loss", "Mean loss of the latest round.", value=totals.losses[-1])
        means = GaugeMetricFamily("paceline_round_mean", "The job's further means, latest round.", labels=["name"])
        for name, value in totals.latest_means.items():
            means.add_metric([name], value)
        yield means
        evaluation = GaugeMetricFamily("paceline_evaluation", "Metrics of the latest evaluation.", labels=["name"])
        for name, value in self.evaluation.items():
            evaluation.add_metric([name], value)
        yield evaluation
        connected = sum(worker.state not in AWAY for worker in snapshot.workers)
        yield GaugeMetricFamily("paceline_workers_connected", "Workers with an open session.", value=connected)
        yield CounterMetricFamily(
            "paceline_received_bytes", "Tensor bytes that workers pushed.", value=self._traffic.pushed_bytes
        )
        yield CounterMetricFamily(
            "paceline_sent_bytes", "Tensor bytes that workers pulled.", value=self._traffic.pulled_bytes
        )
        rejected = CounterMetricFamily(
            "paceline_contributions_rejected", "Contributions that were not taken.", labels=["reason"]
        )
        for reason, count in totals.rejected.items():
            rejected.add_metric([reason.value], count)
        yield rejected


def _checkpoint_metrics(totals: Totals, now_s: float) -> Iterator[Metric]:
    saves = totals.saves
    yield GaugeMetricFamily("paceline_checkpoint_version", "Version of the newest checkpoint.", value=saves.version)
    if saves.at_s is not None:
        age_s = now_s - saves.at_s
        yield GaugeMetricFamily("paceline_checkpoint_age_seconds", "Since it was saved.", value=age_s)
        took = "From the order to the disk, of the newest checkpoint."
        yield GaugeMetricFamily("paceline_checkpoint_save_seconds", took, value=saves.seconds)
    saved = CounterMetricFamily("paceline_checkpoints", "Checkpoints by what became of them.", labels=["result"])
    saved.add_metric(["saved"], saves.saved)
    saved.add_metric(["failed"], saves.failed)
    yield saved


def _round_metrics(totals: Totals) -> Iterator[Metric]:
    yield CounterMetricFamily("paceline_rounds", "Committed rounds.", value=totals.rounds)
    skipped = "Updates whose sum was not finite; the loss scale was halved."
    yield CounterMetricFamily("paceline_updates_skipped", skipped, value=totals.skipped)
    seconds = HistogramMetricFamily("paceline_round_seconds", "From a round's plan to its new version.")
    seconds.add_metric([], _buckets(ROUND_BUCKETS_S, totals.round_buckets), sum_value=totals.round_s)
    yield seconds
    behind = HistogramMetricFamily("paceline_task_staleness_versions", "Versions that applied tasks were behind.")
    staleness = totals.staleness
    behind.add_metric([], _buckets(STALENESS_BUCKETS, staleness.buckets), sum_value=staleness.versions)
    yield behind


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Name the buckets and sum them up from the first, as Prometheus has it; the last has no bound."""
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, itertools.accumulate(counts), strict=True))


def _worker_metrics(totals: Totals) -> Iterator[Metric]:
    rows = _labelled(totals)
    for field, what in (
        ("planned", "Tasks allocated."),
        ("used", "Tasks that entered an update."),
        ("wasted", "Tasks that were worked on and entered no update."),
        ("replanned", "Tasks planned again for this worker after another's loss."),
    ):
        tasks = CounterMetricFamily(f"paceline_tasks_{field}", what, labels=["worker"])
        for name, sums in rows.items():
            tasks.add_metric([name], getattr(sums, field))
        yield tasks
    seconds = CounterMetricFamily(
        "paceline_worker_seconds", "Seconds of computing: the bill.", labels=["worker", "use"]
    )
    idle = CounterMetricFamily(
        "paceline_barrier_idle_seconds", "From a worker's last contribution to the close.", labels=["worker"]
    )
    data = CounterMetricFamily(
        "paceline_worker_data_seconds", "Of the used seconds, those of waiting for samples.", labels=["worker"]
    )
    for name, sums in rows.items():
        data.add_metric([name], sums.data_s)
        seconds.add_metric([name, "used"], sums.used_s)
        seconds.add_metric([name, "wasted"], sums.wasted_s)
        idle.add_metric([name], sums.idle_s)
    yield seconds
    yield data
    yield idle


def _cost_metrics(totals: Totals, prices: Mapping[str, float] | None) -> Iterator[Metric]:
    cost = CounterMetricFamily("paceline_cost", "Of the worker seconds, at the hourly prices.", labels=["worker"])
    for name, sums in _labelled(totals).items():
        price = price_of(prices, name)
        if price is not None:
            cost.add_metric([name], sums.cost(price))
    if cost.samples:
        yield cost


def _labelled(totals: Totals) -> dict[str, WorkerTotals]:
    """Give the sums by label: the first WORKER_LABELS names that did anything, then all others in one."""
    rows: dict[str, WorkerTotals] = {}
    for name, sums in totals.workers.items():
        if len(rows) < WORKER_LABELS:
            rows[name] = sums
        else:
            rows.setdefault(OTHER, WorkerTotals()).add(sums)
    return rows


def _learned_metrics(workers: tuple[WorkerSnapshot, ...]) -> Iterator[Metric]:
    mean = GaugeMetricFamily("paceline_learned_task_seconds", "Learned mean seconds per task.", labels=["worker"])
    radius = GaugeMetricFamily(
        "paceline_learned_task_radius_seconds", "Confidence radius of the learned mean.", labels=["worker"]
    )
    # One series per name, whatever the snapshot says: Prometheus refuses a whole scrape for one double.
    for worker in {worker.name: worker for worker in workers[:WORKER_LABELS]}.values():
        if worker.mean_task_s is not None and worker.radius_s is not None:
            mean.add_metric([worker.name], worker.mean_task_s)
            radius.add_metric([worker.name], worker.radius_s)
    yield mean
    yield radius


def _oracle_metrics(workers: tuple[WorkerSnapshot, ...], tasks: int) -> Iterator[Metric]:
    means_s = [worker.mean_task_s for worker in workers if worker.state not in AWAY and worker.mean_task_s]
    if means_s and tasks:
        best = expected_rounds(np.array(means_s), tasks)[ORACLE]
        what = "What a round would take the oracle, if all took their learned means and nothing had to travel."
        yield GaugeMetricFamily("paceline_oracle_round_seconds", what, value=best.seconds)
