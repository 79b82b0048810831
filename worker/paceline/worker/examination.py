"""Finds out why a worker cannot join a server: takes the steps of joining one by one, and says how each went.

The last step but one is a real hello, since only the server knows whom it welcomes; the examiner leaves before it is
ready, so that it is given nothing to do.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import grpc
from pydantic import ValidationError

from paceline.access import Access
from paceline.errors import JobImportError, PacelineError, RefusedError, UnavailableError, UsageError
from paceline.protos import coordinator_pb2 as pb
from paceline.protos.channels import handshake_problem, metadata, open_channel
from paceline.protos.coordinator_pb2_grpc import CoordinatorStub
from paceline.protos.framing import PROTOCOL_VERSION
from paceline.settings import SharedSettings
from paceline.version import __version__

CONNECT_S = 5.0
# The server asks the holder of a claimed name first.
WELCOME_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of joining.

    Attributes:
        name: of what was looked at.
        well: None: it was not looked at, and why not is in `says`.
        says: what was found, and what to do where it went wrong.
        exit_code: of a worker whom that would keep away; 0: none.
    """

    name: str
    well: bool | None
    says: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Patient:
    """Who wants to join.

    Attributes:
        job: None: jobs are not compared.
    """

    address: str
    name: str
    access: Access = field(repr=False)
    job: str | None = None
    data: Path | None = None

    @property
    def host(self) -> str:
        """Name or address of the server."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.address.rpartition(":")[2])


def examine(patient: Patient) -> Iterator[Step]:
    """Take the steps, up to the first that goes wrong."""
    try:
        yield _resolved(patient)
        yield _reached(patient)
        yield _encrypted(patient)
        welcome = _welcomed(patient)
        yield _let_in(patient, welcome)
        yield _same_version(welcome)
        yield _same_job(patient, welcome)
    except _Wrong as wrong:
        yield wrong.step


class _Wrong(Exception):  # noqa: N818  # it ends the examination, and is no error
    def __init__(self, name: str, says: str, kind: type[PacelineError]) -> None:
        super().__init__(says)
        self.step = Step(name, False, says, kind.exit_code)


def _resolved(patient: Patient) -> Step:
    try:
        found = socket.getaddrinfo(patient.host, patient.port, type=socket.SOCK_STREAM)
    except OSError as error:
        why = error.strerror or error
        says = f"{patient.host!r} is not known here ({why}): say an address, or add it to /etc/hosts or your DNS"
        raise _Wrong("name", says, UnavailableError) from None
    addresses = dict.fromkeys(str(row[4][0]) for row in found)
    return Step("name", True, f"{patient.host} is {', '.join(addresses)}")


def _reached(patient: Patient) -> Step:
    try:
        with socket.create_connection((patient.host, patient.port), CONNECT_S) as connection:
            here = connection.getsockname()[0]
    except ConnectionRefusedError:
        says = (
            f"nobody listens on port {patient.port} of {patient.host}: is the server running, and started with"
            f" --bind 0.0.0.0:{patient.port}? (without --bind it listens to its own machine alone)"
        )
        raise _Wrong("port", says, UnavailableError) from None
    except TimeoutError:
        says = (
            f"no answer within {CONNECT_S:g} s: a firewall between here and {patient.host} drops what goes to the port"
        )
        raise _Wrong("route", says, UnavailableError) from None
    except OSError as error:
        says = f"{patient.host} cannot be reached from here: {error.strerror or error}"
        raise _Wrong("route", says, UnavailableError) from None
    return Step("port", True, f"somebody listens on port {patient.port}; this machine is {here} to him")


def _encrypted(patient: Patient) -> Step:
    problem = handshake_problem(patient.address, patient.access.tls)
    if problem is not None:
        raise _Wrong("tls", problem, RefusedError)
    tls = patient.access.tls
    if tls is None:
        return Step("tls", True, "nothing is encrypted, on both sides")
    return Step(
        "tls", True, f"certificates and clocks agree; the first certificate here ends {tls.ends:%Y-%m-%d %H:%M} UTC"
    )


def _welcomed(patient: Patient) -> pb.Welcome:
    """Say hello and hear the answer."""
    done = threading.Event()

    def says() -> Iterator[pb.WorkerMessage]:
        hello = pb.Hello(
            protocol_version=PROTOCOL_VERSION,
            package_version=__version__,
            name=patient.name,
            incarnation=uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            device="none: paceline doctor",
        )
        yield pb.WorkerMessage(hello=hello)
        done.wait(WELCOME_S)

    with open_channel(patient.address, patient.access) as channel:
        call = CoordinatorStub(channel).Session(says(), timeout=WELCOME_S, metadata=metadata(patient.access))
        try:
            answer = next(iter(call))
        except StopIteration:
            raise _Wrong(
                "hello", "the server ended the session without a word: look at its log", RefusedError
            ) from None
        except grpc.RpcError as error:
            raise _of_call(error) from None
        finally:
            done.set()
            call.cancel()
    if answer.WhichOneof("message") == "refused":
        code = pb.RefusalCode.Name(answer.refused.code).removeprefix("REFUSAL_CODE_").lower().replace("_", " ")
        raise _Wrong("hello", f"{answer.refused.reason} ({code})", RefusedError)
    return answer.welcome


def _of_call(error: grpc.RpcError) -> _Wrong:
    code, details = error.code(), str(error.details() or "")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return _Wrong("token", details, RefusedError)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _Wrong("token", f"{details}; a worker waits by itself", RefusedError)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return _Wrong("hello", "something answers there, but it is no paceline server", RefusedError)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _Wrong("hello", f"no welcome within {WELCOME_S:g} s: the server is busy, or stopped", UnavailableError)
    first = next(iter(details.splitlines()), code.name)
    return _Wrong("hello", f"what listens there does not speak as a paceline server does: {first}", UnavailableError)


def _let_in(patient: Patient, welcome: pb.Welcome) -> Step:
    with_token = "with its token" if patient.access.token else "without a token, which the server does not ask for"
    return Step("token", True, f"the server welcomes {patient.name!r}, {with_token}; its job is {welcome.job}")


def _same_version(welcome: pb.Welcome) -> Step:
    try:
        SharedSettings.model_validate_json(welcome.settings_json)
    except ValidationError as error:
        says = f"the server (paceline {welcome.package_version}) has settings that {__version__} does not know: "
        raise _Wrong("version", f"{says}{error.errors()[0]['msg']}; install the same on both", RefusedError) from None
    if welcome.package_version != __version__:
        return Step(
            "version",
            True,
            f"paceline is {welcome.package_version} there, {__version__} here: they understand each other",
        )
    return Step("version", True, f"paceline {__version__} on both")


def _same_job(patient: Patient, welcome: pb.Welcome) -> Step:
    if patient.job is None:
        return Step("job", None, f"not compared: name the worker's JOB too (the server's is {welcome.job})")
    # Importing torch takes a second or two, which the other steps need not wait for.
    import torch

    from paceline.fingerprint import JobFingerprint, differences
    from paceline.loading import load_job
    from paceline.worker.agreement import build

    shared = SharedSettings.model_validate_json(welcome.settings_json)
    try:
        here = build(load_job(patient.job, patient.data), shared, torch.device("cpu")).fingerprint
    except JobImportError as error:
        last = error.traceback_text.strip().splitlines()[-1:] or [""]
        raise _Wrong("job", f"{error} ({last[0].strip()})", UsageError) from None
    except PacelineError as error:
        raise _Wrong("job", str(error), type(error)) from None
    found = differences(JobFingerprint.from_json(welcome.job_fingerprint_json), here)
    if found:
        raise _Wrong("job", f"it is not the server's: {'; '.join(found)}", RefusedError)
    return Step("job", True, f"{patient.job} is the server's: the same tensors, the same samples")
