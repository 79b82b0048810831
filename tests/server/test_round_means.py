"""Further sums of the job's loss travel with contributions, are averaged over the round, and are held to bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.protos import coordinator_pb2 as pb
from paceline.server.ledger_reader import LedgerReader
from tests.server.raw_worker import RawWorker, serving, settings, task_ids


def sums(lease: pb.Lease, name: str = "right_sum", each: float = 3.0) -> list[pb.NamedSums]:
    return [pb.NamedSums(name=name, sums=[each + place for place, _ in enumerate(task_ids(lease.tasks))])]


async def test_means_of_each_round_stand_in_status_summary_and_ledger(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, rounds=2, tasks=2)) as run, RawWorker(run.address) as worker:
        await worker.join()
        for each in (3.0, 5.0):
            lease = await worker.hear("lease")
            manifest = worker.manifest(lease)
            assert list(manifest.samples) == [manifest.samples[0]] * 2
            result = await worker.push(worker.contribution(lease, sums=sums(lease, each=each)))
            assert result.verdict == pb.PUSH_VERDICT_ACCEPTED
        await worker.hear("goodbye")
        ended = await run.end()
    per_task = manifest.samples[0]
    expected = [(each + each + 1) / (2 * per_task) for each in (3.0, 5.0)]
    assert ended.summary["means"] == {"right": pytest.approx(expected)}
    with LedgerReader(tmp_path / "ledger.sqlite") as ledger:
        assert [dict(record.means) for record in ledger.rounds()] == [
            {"right": pytest.approx(value)} for value in expected
        ]


@pytest.mark.parametrize(
    "wrong",
    [
        [pb.NamedSums(name="a b", sums=[1.0, 2.0])],
        [pb.NamedSums(name="x", sums=[1.0])],
        [pb.NamedSums(name="x", sums=[1.0, float("nan")])],
        [pb.NamedSums(name="x", sums=[1.0, 2.0]), pb.NamedSums(name="x", sums=[1.0, 2.0])],
        [pb.NamedSums(name=f"x{number}", sums=[1.0, 2.0]) for number in range(17)],
    ],
)
async def test_sums_that_no_job_gives_are_refused(tmp_path: Path, wrong: list[pb.NamedSums]) -> None:
    async with serving(settings(tmp_path, rounds=1, tasks=2)) as run, RawWorker(run.address) as worker:
        await worker.join()
        result = await worker.push(worker.contribution(await worker.hear("lease"), sums=wrong))
        assert result.verdict == pb.PUSH_VERDICT_REFUSED
        assert not (await run.status()).means
