"""The computing thread of a worker: builds the job, agrees on it with the server, and works off its leases.

The communication thread is Connection's; what both share is the Desk's. Three buffers of the model's size are enough:
the parameters, the current gradient (both the runner's), and one sum, which is free again when its push is answered.
Only a lease that waits for its collect while another is worked on takes a second sum.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

import torch

from paceline.access import OPEN, Access
from paceline.contribution import ContributionBuffer
from paceline.coordination.events import TaskResult
from paceline.errors import PacelineError, RefusedError
from paceline.fingerprint import JobFingerprint, differences
from paceline.gradients import TaskGradient
from paceline.job import Job
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import crc32c
from paceline.settings import WorkerSettings
from paceline.tasks import is_validation
from paceline.worker import convert
from paceline.worker.agreement import BuiltJob, build, cache_of, warm_up
from paceline.worker.connection import Connection
from paceline.worker.desk import Desk, Identity, Terms
from paceline.worker.device import describe_device
from paceline.worker.execution import Executor, FinishedTask, GivenUpTask, LoadedTask, Slowness
from paceline.worker.leader import Leader
from paceline.worker.leases import Compute, Deliver, End, FailedTask, HeldLease, Load, Settle, Step
from paceline.worker.samples import Samples
from paceline.worker.sums import SumPool
from paceline.worker.team import Team
from paceline.worker.transfer import Pull, PullState, Push

# A server answers a fingerprint at once; it has it to compare.
_REFUSAL_WITHIN_S = 10.0


class Worker:
    """One incarnation of a worker.

    Args:
        settings: as the user gave them.
        job: loaded from settings.job.
        device: found from settings.device.
        name: settings.name, or a slot's.
        say: tells people, in one line.
        access: certificates and token.
        team: the processes that compute for it, this one among them; None: it is alone.

    Attributes:
        tasks_done: finished tasks; work_s: their seconds.

    Raises:
        UsageError: the delay is no law.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        job: Job,
        device: torch.device,
        name: str,
        say: Callable[[str], None],
        access: Access = OPEN,
        team: Team | None = None,
    ) -> None:
        self._settings = settings
        self._job = job
        self._device = device
        self._say = say
        self._incarnation = secrets.token_hex(16)
        self._slowness = Slowness.of(settings, name)
        identity = Identity(
            name=name,
            incarnation=self._incarnation,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=describe_device(device) + (f" x {team.place.size}" if team is not None else ""),
            pace=settings.pace,
        )
        self._name = name
        self._desk = Desk(settings.server, identity, say)
        self._samples = Samples(settings, device, say, self._desk.worked)
        self._desk.tasks_changed = self._samples.want
        self._leader = None if team is None else Leader(team, self._desk.worked, lambda: self._desk.leaving)
        self._alone_told = False
        self._connection = Connection(settings.server, self._incarnation, self._desk, settings.reconnect_for_s, access)
        self._desk.connection = self._connection
        self._built: BuiltJob | None = None
        self._executor: Executor
        self._sums: SumPool
        self._version: int | None = None
        self._gradient: TaskGradient | None = None
        self._loaded: LoadedTask | None = None
        self.tasks_done = 0
        self.work_s = 0.0

    @property
    def ready(self) -> bool:
        """Tell whether tasks may come."""
        return self._desk.ready

    def run(self) -> str:
        """Work until the server, or drain(), ends it.

        Returns:
            How it ended well.

        Raises:
            PacelineError: how it ended badly.
        """
        # Whenever a signal comes, gRPC's thread ends first: a process that ends beside it may never end.
        try:
            self._connection.start()
            while (step := self._desk.next_step()) is not None:
                self._take(step)
        finally:
            self._connection.close()
            self._samples.close()
            if self._leader is not None:
                self._leader.end()
        return self._desk.ending()

    def drain(self) -> None:
        """Finish the present task, push what there is, leave. Thread-safety: any thread; signal handlers too."""
        self._desk.drain()

    def _take(self, step: Step | Terms) -> None:
        match step:
            case Terms():
                self._agree(step)
            case Compute(lease, task):
                self._compute(lease, task)
            case Load(lease, task):
                self._load(lease, task)
            case Settle(lease, task, keep):
                self._settle(lease, task, keep)
            case Deliver(lease):
                self._deliver(lease)
            case End(lease):
                if self._loaded is not None:
                    lease.wasted_s += self._discard_loaded(lease)
                self._desk.end_lease(lease)

    # ---- joining ----------------------------------------------------------------------------------------------

    def _agree(self, terms: Terms) -> None:
        """Build the job, unless it was built under the same settings before, and say that it is ready."""
        fresh = self._built is None or self._built.shared != terms.shared
        built = self._rebuild(terms) if fresh else self._here()
        self._version = None
        here = built.fingerprint.to_json()
        different = differences(JobFingerprint.from_json(terms.welcome.job_fingerprint_json), built.fingerprint)
        if different:
            # The server refuses it in its own words, and has it in its log.
            self._desk.say_ready(terms, here)
            self._desk.wait_for(lambda: not self._desk.current(terms), _REFUSAL_WITHIN_S)
            if self._desk.current(terms):
                raise RefusedError(f"the job here is not the server's: {'; '.join(different)}")
            return
        if not self._take_constants(terms, built):
            return
        if self._leader is not None:
            self._leader.spread_constants(built)
        if fresh:
            built.runner.notice = self._say
            timing = warm_up(built.runner)
            if timing.trouble is not None:
                self._say(f"the first task failed, and may fail again: {timing.trouble}")
            if built.runner.micro_steps > 1 and built.runner.splits:
                self._say(f"tasks are computed in {built.runner.micro_steps} slices, as memory allows")
            self._samples.begin(built, timing)
        self._desk.say_ready(terms, here)
        self._say(f"joined {self._settings.server} as {self._name} (job {terms.welcome.job}, {self._device})")

    def _rebuild(self, terms: Terms) -> BuiltJob:
        if self._built is not None:
            # First of all forget the old one: two models may be one too many for the device.
            self._samples.close()
            self._built = self._gradient = self._loaded = None
            del self._executor, self._sums
        if self._leader is not None:
            self._leader.order_build(terms.shared)
        self._built = built = build(self._job, terms.shared, self._device, cache_of(self._settings, self._desk.worked))
        if self._leader is not None:
            self._leader.built(built)
        desk = self._desk
        self._executor = Executor(built.runner, self._slowness, desk.sleep, desk.worked, self._samples.load)
        self._sums = SumPool(built.runner.new_sum)
        return built

    def _take_constants(self, terms: Terms, built: BuiltJob) -> bool:
        """Take what travels once; False if other terms came meanwhile."""
        welcome, target = terms.welcome, built.flat.constants_view
        if not len(target):
            return True
        if len(welcome.constants) == len(target) and crc32c(welcome.constants) == welcome.constants_crc32c:
            target[:] = welcome.constants
        else:
            pull = Pull(target, constants=True)
            self._desk.pull(pull, lambda: self._desk.current(terms))
            if pull.state is not PullState.DONE:
                return False
        built.flat.image.from_host(len(built.flat.version_view))
        return True

    # ---- tasks ------------------------------------------------------------------------------------------------

    def _load(self, lease: HeldLease, task: int) -> None:
        if self._samples.ahead:
            return
        loaded = self._executor.load(task)
        if isinstance(loaded, FailedTask):
            self._fail(lease, loaded)
        else:
            self._loaded = loaded

    def _compute(self, lease: HeldLease, task: int) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None and loaded.batch.task != task:
            loaded = None
        if not self._have_version(lease):
            return
        if self._leader is not None:
            if lease.keep_in_advance:
                self._compute_together(self._leader, lease, task)
                return
            self._tell_that_it_is_alone(self._leader)
        outcome = self._executor.run(task, lease.task_limit_s, lambda: self._desk.wanted(lease), loaded)
        match outcome:
            case FinishedTask(result, None):
                self._measured(lease, result)
            case FinishedTask(result, gradient):
                self._gradient = gradient
                self._finish(lease, result)
            case FailedTask():
                self._fail(lease, outcome)
            case GivenUpTask(seconds):
                with self._desk.books() as book:
                    book.give_up(lease, seconds)

    def _compute_together(self, leader: Leader, lease: HeldLease, task: int) -> None:
        """Have all processes do what is there of a lease."""
        with self._desk.books() as book:
            tasks = [task, *book.take_waiting(lease)]
        done = leader.compute(
            self._here(),
            self._executor,
            tasks,
            lease.task_limit_s,
            lambda: self._desk.wanted(lease),
            lambda: self._sum_of(lease),
        )
        with self._desk.books() as book:
            book.give_up(lease, done.wasted_s)
            for result in done.results:
                self.tasks_done += 1
                self.work_s += result.seconds
                note = book.measured if is_validation(result.task) else book.summed
                note(lease, result)
        for result in done.results:
            self._desk.send(convert.report(lease.id, result))
        for failed in done.failures:
            self._fail(lease, failed)

    def _tell_that_it_is_alone(self, leader: Leader) -> None:
        if not self._alone_told:
            self._alone_told = True
            why = "this policy hands tasks out one by one"
            self._say(f"only the first of its {leader.size} processes computes: {why}")

    def _have_version(self, lease: HeldLease) -> bool:
        """Bring the model to a lease's version; False if the lease is over instead."""
        if self._version == lease.version:
            return True
        flat = self._here().flat
        self._version = None
        image = self._desk.image(lease.version)
        if image is not None and len(image) == len(flat.version_view):
            flat.version_view[:] = image
        else:
            pull = Pull(flat.version_view, lease.version)
            self._desk.pull(pull, lambda: self._desk.wanted(lease))
            if pull.state is not PullState.DONE:
                with self._desk.books() as book:
                    book.give_up(lease, 0.0)
                if pull.state is PullState.GONE:
                    self._desk.end_lease(lease, version_gone=True)
                return False
        flat.image.from_host(0, len(flat.version_view))
        self._here().runner.adopt_version(lease.loss_scale)
        self._version = lease.version
        if self._leader is not None:
            self._leader.spread_version(self._here(), lease.loss_scale)
        return True

    def _finish(self, lease: HeldLease, result: TaskResult) -> None:
        self.tasks_done += 1
        self.work_s += result.seconds
        with self._desk.books() as book:
            book.finish(lease, result)
        if self._here().inline and lease.keep_in_advance:
            # Its sum is always free, so the last report can carry the contribution: one message less per lease.
            self._settle(lease, result.task, True)
            if lease.push_unasked and not lease.waiting:
                self._deliver(lease, result)
                return
        self._desk.send(convert.report(lease.id, result))

    def _measured(self, lease: HeldLease, result: TaskResult) -> None:
        self.tasks_done += 1
        self.work_s += result.seconds
        with self._desk.books() as book:
            book.measured(lease, result)
        self._desk.send(convert.report(lease.id, result))

    def _fail(self, lease: HeldLease, failed: FailedTask) -> None:
        with self._desk.books() as book:
            book.fail(lease, failed)
        self._desk.send(convert.failure_report(lease.id, failed))

    def _discard_loaded(self, lease: HeldLease) -> float:
        """Forget samples that were loaded for a lease; gives the seconds they took."""
        with self._desk.books() as book:
            if self._loaded is None or book.loaded is None or book.loaded[0] is not lease:
                return 0.0
        seconds, self._loaded = self._loaded.seconds, None
        return seconds

    # ---- sums -------------------------------------------------------------------------------------------------

    def _settle(self, lease: HeldLease, task: int, keep: bool) -> None:
        gradient, self._gradient = self._gradient, None
        if keep and gradient is not None:
            self._here().runner.accumulate(self._sum_of(lease), gradient)
        with self._desk.books() as book:
            book.settle(lease, task, keep)

    def _sum_of(self, lease: HeldLease) -> ContributionBuffer:
        with self._desk.books() as book:
            lease.holds_sum = True
            held = {other.id for other in book.held()}
        return self._sums.of(lease.id, held)

    def _deliver(self, lease: HeldLease, last: TaskResult | None = None) -> None:
        """Push a lease's sum; `last` is the result that is reported with it."""
        total = self._sums[lease.id]
        total.image.to_host()
        if not self._here().inline:
            self._desk.deliver(lease, lambda: Push(self._manifest(lease), total.host_view))
            return
        contribution = self._desk.deliver_inline(lease, lambda: self._inlined(lease, total))
        self._sums.release(lease.id)
        if contribution is None:
            return
        if last is not None:
            self._desk.send(convert.report(lease.id, last, contribution))
        else:
            self._desk.send(pb.WorkerMessage(contribution=contribution))

    def _inlined(self, lease: HeldLease, total: ContributionBuffer) -> pb.Contribution:
        lease.holds_sum = False
        payload = bytes(total.host_view)
        return pb.Contribution(manifest=self._manifest(lease), payload=payload, payload_crc32c=crc32c(payload))

    def _manifest(self, lease: HeldLease) -> pb.Manifest:
        return convert.manifest(lease, self._incarnation, self._here().segments)

    def _here(self) -> BuiltJob:
        if self._built is None:
            raise PacelineError("a lease came before the job was built")
        return self._built
