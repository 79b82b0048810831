"""Runs that were recorded by an independent computation in plain torch are replayed from their ledgers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.coordination.effects import Outcome
from paceline.errors import SettingsError, UsageError
from paceline.server.past_run import open_run
from paceline.server.replay import Replay
from paceline.server.verdict import FAST_TOLERANCE, Judgement, Verdict, judge
from tests.server.recorded import Planned, Recorder, Share, record

JOBS = Path(__file__).parents[1] / "jobs.py"


def plain(rounds: int) -> list[Planned]:
    """Two workers, all at the newest version."""
    return [
        Planned((Share("w1", k, (3 * k, 3 * k + 2)), Share("w2", k, (3 * k + 1,)))) for k in range(rounds)
    ]  # fmt: skip


# Work of older versions is applied with weights and divisors; version 1 is used up to round 6, version 0 up to 4.
STALE = [
    Planned((Share("w1", 0, (1, 0)),)),
    Planned((Share("w1", 1, (4,), 0.3),), divisor=1.7),
    Planned((Share("w2", 1, (2,)), Share("w1", 2, (5, 6), 0.7)), divisor=11.0),
    Planned((Share("w3", 0, (3, 8), 0.1),)),
    Planned((Share("w1", 4, (7,)), Share("w2", 3, (9, 10)))),
    Planned((Share("w3", 1, (11,), 1 / 3), Share("w2", 5, (12,), 1 / 7), Share("w1", 5, (13,))), divisor=3.1),
    Planned((Share("w1", 6, (14, 15)),)),
]


def replayed(path: Path, **given: Any) -> Judgement:
    with open_run(path) as run:
        return judge(run, Replay(run, **given))


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path / "ledger.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def files(path: Path) -> dict[str, str]:
    return {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in path.iterdir()}


@pytest.mark.parametrize("job", ["DigitsLike", "DigitsLikeAdam"])
def test_work_of_older_versions_gives_the_independent_computation_bit_for_bit(tmp_path: Path, job: str) -> None:
    recorder = record(tmp_path / "run", STALE, job=f"tests/jobs.py:{job}")
    before = files(recorder.path)
    held: list[int] = []
    with open_run(recorder.path) as run:
        replay = Replay(run)
        judgement = judge(run, replay, lambda number: held.append(len(replay._states)))
        assert (run.rounds, run.tasks, run.staleness) == (7, 16, 4)
        for name, value in replay._flat.module.state_dict().items():
            assert torch.equal(value, recorder.states[-1][name]), name
    assert (judgement.verdict, judgement.rounds, judgement.tasks) == (Verdict.BIT_EQUAL, 7, 16)
    assert (judgement.difference, judgement.tensors, judgement.remarks) == (None, {}, ())
    # Versions 0, 1 and 3 are kept while a later lease needs them, and no others.
    assert held == [2, 2, 3, 2, 1, 0, 0]
    assert files(recorder.path) == before


def test_a_stale_version_matters(tmp_path: Path) -> None:
    path = record(tmp_path / "run", STALE).path
    change(path, "UPDATE leases SET version = 2 WHERE round = 4")
    judgement = replayed(path)
    assert judgement.verdict is Verdict.DIFFERS
    assert judgement.difference is not None
    assert (judgement.difference.round, judgement.rounds) == (4, 3)
    assert judgement.difference.task is not None
    assert (judgement.difference.task.task, judgement.difference.task.worker) == (3, "w3")


@pytest.mark.parametrize(
    ("update", "worker", "what"),
    [
        ("leases SET kept = '9,12'", "w1", r"^loss sum of task 12 \(w1, at version 3\)"),
        ("leases SET weight = 0.999", "w2", r"^checksum .*every task's loss is the same"),
        ("leases SET loss_sums = '[3.5]'", "w2", "^loss sum of task 10 .*: 3.5 in the run"),
        ("leases SET samples = '[5]'", "w2", "^samples of task 10 .*: 5 in the run, 4 in"),
        ("leases SET version = 4", "w1", "is at version 4: there is none"),
        ("leases SET version = -1", "w1", "is at version -1: there is none"),
        ("rounds SET divisor = 13", "", "^checksum"),
        ("rounds SET state_crc32c = 7", "", "^checksum .*: 7 in the run"),
        ("rounds SET state_crc32c = NULL", "", "^checksum .*: None in the run"),
        ("rounds SET loss = loss + 1e-9", "", "^mean loss"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_found_and_the_round_named(
    tmp_path: Path, update: str, worker: str, what: str
) -> None:
    path = record(tmp_path / "run", plain(6)).path
    change(path, f"UPDATE {update} WHERE round = 4" + (f" AND worker = '{worker}'" if worker else ""))
    found_in_round_4(path, what)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("leases WHERE round = 4 AND worker = 'w2'", "^tasks of its leases: 3 in the run, 2 in the replay"),
        ("rounds WHERE round = 4", "missing in the ledger, which goes on with round 5"),
    ],
)
def test_a_ledger_with_rows_missing_is_found_and_the_round_named(tmp_path: Path, rows: str, what: str) -> None:
    path = record(tmp_path / "run", plain(6)).path
    change(path, f"DELETE FROM {rows}")
    found_in_round_4(path, what)


def found_in_round_4(path: Path, what: str) -> None:
    made: list[int] = []
    with open_run(path) as run:
        judgement = judge(run, Replay(run), made.append)
    assert judgement.verdict is Verdict.DIFFERS
    assert judgement.difference is not None
    assert (judgement.difference.round, judgement.rounds, judgement.tasks) == (4, 3, 9)
    assert made == [1, 2, 3]  # what comes after a difference would differ anyway
    assert re.search(what, judgement.difference.what), judgement.difference.what


def test_a_damaged_ledger_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = record(tmp_path / "run", plain(3)).path
    change(path, "UPDATE leases SET kept = '0-nine' WHERE round = 2 AND worker = 'w1'")
    with pytest.raises(UsageError, match=r"^ledger '.*run/ledger.sqlite' cannot be read: .*nine"):
        replayed(path)
    change(path, "UPDATE leases SET kept = '3' WHERE round = 2 AND worker = 'w1'")
    with pytest.raises(UsageError, match="cannot be read"):
        replayed(path)


def test_leases_of_a_round_that_was_not_committed_are_left_out(tmp_path: Path) -> None:
    path = record(tmp_path / "run", plain(4), outcome=None).path
    change(path, "DELETE FROM rounds WHERE round = 4")
    judgement = replayed(path)
    assert (judgement.verdict, judgement.rounds, judgement.tensors) == (Verdict.BIT_EQUAL, 3, None)
    assert judgement.remarks == ("the run goes on, or its server was killed: replayed up to its last committed round",)


def test_a_run_without_rounds_is_equal(tmp_path: Path) -> None:
    judgement = replayed(record(tmp_path / "run", [], outcome=Outcome.STOPPED).path)
    assert (judgement.verdict, judgement.rounds, judgement.tasks) == (Verdict.BIT_EQUAL, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.STOPPED, Outcome.FAILED])
def test_saved_weights_that_no_round_made_are_found_unless_an_update_failed(tmp_path: Path, outcome: Outcome) -> None:
    path = record(tmp_path / "run", plain(3), outcome=outcome).path
    other = record(tmp_path / "other", plain(4)).path
    (path / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    judgement = replayed(path)
    if outcome is Outcome.FAILED:
        assert judgement.verdict is Verdict.BIT_EQUAL
        assert "failed in an update" in judgement.remarks[0]
    else:
        assert judgement.verdict is Verdict.DIFFERS
        assert judgement.difference is not None
        assert "the saved weights differ in 0.weight" in judgement.difference.what


def test_fast_sums_are_judged_by_the_saved_weights_where_bits_differ(tmp_path: Path) -> None:
    # Recorded with sums in float64: what other rounding does to a run with fast sums.
    recorder = record(tmp_path / "run", plain(9), sums="fast")
    judgement = replayed(recorder.path)
    assert judgement.verdict is Verdict.CLOSE
    assert judgement.difference is not None
    assert judgement.tensors
    assert 0 < max(judgement.tensors.values()) < FAST_TOLERANCE < judgement.tolerance == 3 * FAST_TOLERANCE
    other = record(tmp_path / "other", plain(8), sums="fast").path
    (recorder.path / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert replayed(recorder.path).verdict is Verdict.DIFFERS
    (recorder.path / "model.safetensors").unlink()
    assert replayed(recorder.path).verdict is Verdict.DIFFERS


def test_the_jobs_own_error_is_a_difference_with_its_traceback(tmp_path: Path) -> None:
    path = record(tmp_path / "run", plain(3)).path
    job = tmp_path / "job.py"
    job.write_text(
        "import torch\nimport tests.jobs\n"
        "class DigitsLike(tests.jobs.DigitsLike):\n"
        "    calls = 0\n"
        "    def loss(self, model, batch):\n"
        "        self.calls += 1\n"
        "        if self.calls == 5:\n"
        "            raise ValueError('no fifth')\n"
        "        return super().loss(model, batch)\n"
    )
    judgement = replayed(path, job=f"{job}:DigitsLike")
    assert judgement.difference is not None
    assert judgement.difference.round == 2
    assert "no fifth" in judgement.difference.what
    assert "job.py" in judgement.difference.traceback_text


def test_a_job_with_another_loss_is_found_at_its_first_round(tmp_path: Path) -> None:
    path = record(tmp_path / "run", plain(3)).path
    job = tmp_path / "job.py"
    job.write_text(
        "import tests.jobs\n"
        "class DigitsLike(tests.jobs.DigitsLike):\n"
        "    def loss(self, model, batch):\n"
        "        return super().loss(model, batch) + 1e-3\n"
    )
    difference = replayed(path, job=f"{job}:DigitsLike").difference
    assert difference is not None
    assert difference.task is not None
    assert (difference.round, difference.task.task, difference.task.worker, difference.task.version) == (1, 0, "w1", 0)
    assert difference.recorded is not None
    assert difference.replayed == pytest.approx(difference.recorded + 4e-3, rel=1e-6)


@pytest.mark.parametrize(
    ("job", "what"),
    [
        ("DigitsLikeFewer", "the dataset has 600 samples on the server, 500 here"),
        ("DigitsLikeWider", "the server's model has 0.weight, not here"),
        ("DigitsLikeReversed", "the samples differ in order or content"),
    ],
)
def test_another_job_is_refused_with_what_differs(tmp_path: Path, job: str, what: str) -> None:
    path = record(tmp_path / "run", plain(1)).path
    with pytest.raises(UsageError, match=f"^job 'tests/jobs.py:{job}' is not the run's: .*{what}"):
        replayed(path, job=f"tests/jobs.py:{job}")


def test_other_initial_parameters_are_refused(tmp_path: Path) -> None:
    first = record(tmp_path / "first", plain(2)).path
    weights = tmp_path / "init.safetensors"
    weights.write_bytes((first / "model.safetensors").read_bytes())
    path = record(tmp_path / "run", plain(2), init=weights).path
    assert replayed(path).verdict is Verdict.BIT_EQUAL
    other = record(tmp_path / "other", plain(3)).path
    weights.write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(
        UsageError, match=r"begins with parameters .* the weights '.*init.safetensors' must have changed"
    ):
        replayed(path)
    weights.unlink()
    with pytest.raises(UsageError, match=r"weights '.*init.safetensors' do not exist"):
        replayed(path)
    document = json.loads((first / "settings.json").read_text())
    (first / "settings.json").write_text(json.dumps({**document, "initial_model": "0"}))
    with pytest.raises(UsageError, match=r"the run began with 0: its model\(\) or the version of torch"):
        replayed(first)


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(UsageError, match=match) as caught:
            replayed(tmp_path / "run")
        assert "\n" not in str(caught.value)

    refused("has no settings.json: expected the directory of a run")
    path = record(tmp_path / "run", plain(1)).path
    text = (path / "settings.json").read_text()
    document = json.loads(text)
    for changed, match in (
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({**document, "format": 99}), "format 99"),
        (
            json.dumps({**document, "settings": {**document["settings"], "policy": "luck"}}),
            "settings.json' has a setting .*: policy",
        ),
        (json.dumps({**document, "job_fingerprint": {}}), "fingerprint cannot be read"),
        (json.dumps({key: value for key, value in document.items() if key != "initial_model"}), "no 'initial_model'"),
    ):
        (path / "settings.json").write_text(changed)
        refused(match)
    (path / "settings.json").write_text(text)
    whole = (path / "ledger.sqlite").read_bytes()
    (path / "ledger.sqlite").write_bytes(b"noise" * 1000)
    refused("ledger .* cannot be read")
    (path / "ledger.sqlite").write_bytes(whole[: len(whole) // 2])
    refused("ledger .* cannot be read")
    (path / "ledger.sqlite").unlink()
    refused("ledger .* does not exist")
    (path / "ledger.sqlite").write_bytes(whole)
    (path / "model.safetensors").write_bytes(b"noise")
    refused("weights .* cannot be read as safetensors")


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = record(tmp_path / "run", plain(1)).path
    with pytest.raises(SettingsError, match="device is 'cuda:99'"):
        replayed(path, device="cuda:99")


def test_a_ledger_that_is_being_written_is_read_as_it_is(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    plan = plain(4)
    for planned in plan[:2]:
        recorder.round(planned)
    committed = 0
    while committed < 2:
        with open_run(recorder.path) as run:
            committed = run.rounds
    with open_run(recorder.path) as run:
        for planned in plan[2:]:
            recorder.round(planned)
        # Nothing of the run is held while its replay goes on: its books close as if nobody were there.
        recorder.end()
        assert {entry.name for entry in recorder.path.glob("ledger*")} == {"ledger.sqlite"}
        judgement = judge(run, Replay(run))
    assert (judgement.verdict, judgement.rounds) == (Verdict.BIT_EQUAL, 2)
    assert replayed(recorder.path).rounds == 4
