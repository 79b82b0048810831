from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from rich.console import Console

from paceline.errors import UnavailableError
from paceline.protos import coordinator_pb2 as pb
from paceline.server.status import Situation, fetch_status, render_status, status_response, status_to_dict
from paceline.server.totals import Totals
from paceline.settings import RunSettings
from paceline.version import __version__
from tests.server.records import round_record, snapshot, worker_snapshot

SETTINGS = RunSettings(job="digits.py:Digits", tasks=8, seed=2**62)


def response(rounds: int = 2, loss: float = 0.5) -> pb.StatusResponse:
    totals = Totals()
    for number in range(1, rounds + 1):
        totals.observe(round_record(number, loss=loss))
    workers = (worker_snapshot("w1"), worker_snapshot("w2", state="joining", mean_task_s=None))
    situation = Situation(rounds=200, elapsed_s=12.5, run_dir="runs/a", metrics={"accuracy": 0.9})
    return status_response(SETTINGS, totals, snapshot(*workers), situation)


@contextmanager
def serving(service: str) -> Iterator[str]:
    status = grpc.unary_unary_rpc_method_handler(
        lambda request, context: response(),
        request_deserializer=pb.StatusRequest.FromString,
        response_serializer=pb.StatusResponse.SerializeToString,
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Status": status})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_the_answer_comes_back_over_the_wire() -> None:
    with serving("paceline.v1.Coordinator") as address:
        assert fetch_status(address, timeout_s=20) == response()


def test_a_server_that_is_not_there_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnavailableError, match=rf"server '127.0.0.1:{port}' cannot be asked: .*refused") as caught:
        fetch_status(f"127.0.0.1:{port}", timeout_s=20)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnavailableError, match=r"no answer within 0.2 s"):
            fetch_status(f"127.0.0.1:{port}", timeout_s=0.2)


def test_a_server_of_something_else_is_said_to_be_that() -> None:
    with serving("something.Else") as address, pytest.raises(UnavailableError, match="no paceline server"):
        fetch_status(address, timeout_s=20)


def test_json_tells_every_field_and_null_where_nothing_is_known() -> None:
    document = status_to_dict(response())
    assert set(document) == {field.name for field in pb.StatusResponse.DESCRIPTOR.fields}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["version"], document["loss"], document["metrics"]) == (2, 0.5, {"accuracy": 0.9})
    assert (document["tasks_used"], document["tasks_wasted"]) == (12, 4)
    assert (document["seed"], document["package_version"]) == (str(2**62), __version__)
    first, second = document["workers"]
    assert (first["mean_task_s"], first["radius_s"], first["allocation"], first["pace"]) == (0.1, 0.02, 4, 2.0)
    assert (second["state"], second["mean_task_s"], second["radius_s"]) == ("joining", None, None)
    assert status_to_dict(response(rounds=0))["loss"] is None
    assert status_to_dict(response(loss=math.nan))["loss"] is None


def test_a_person_sees_workers_what_was_learned_and_why() -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render_status(response()))
    text = capture.get()
    assert "digits.py:Digits, ata-empirical: training, round 3 of 200, version 2, loss 0.5, 12 s" in text
    assert "last decision: w1 is twice as fast as w2" in text
    assert "tasks 12 used, 4 wasted; worker seconds 1.6, of them 0.4 wasted" in text
    w1 = next(line for line in text.splitlines() if line.strip().startswith("w1"))
    assert w1.split() == ["w1", "busy", "0.1", "0.02", "4", "12", "1.2", "cpu", "host", "pid", "1"]
    w2 = next(line for line in text.splitlines() if line.strip().startswith("w2"))
    assert w2.split()[1:4] == ["joining", "-", "-"]


def test_a_run_without_workers_says_so() -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render_status(pb.StatusResponse(job="a.py:A", policy="greedy", state="waiting")))
    assert "no workers yet" in capture.get()
