"""`paceline ray`: a server in this process, and its workers as actors on the nodes of a Ray cluster.

Each actor keeps one `paceline worker` as a process of its node: a job's code has its own interpreter, as everywhere.
Ray places actors where there is room, and places them anew when their node is gone; the server sees a worker lost, and
one of the same name that comes. Certificates are made for the run and go with the actors.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from paceline.cli.commands import RayCommand
from paceline.cli.exit_codes import of_run
from paceline.cli.json_file import check_writable, write_json
from paceline.cli.ray_actor import WorkerProcess
from paceline.errors import RefusedError, SettingsError, UnavailableError, UsageError
from paceline.extras import needed
from paceline.settings import ADDRESS

# Mistakes that another start does not mend.
MISTAKES = frozenset((UsageError.exit_code, RefusedError.exit_code, SettingsError.exit_code))
LOOK_EVERY_S = 1.0
LEAVE_S = 10.0
CONNECT_S = 10.0
_OF_WORKERS = ("ca.pem", "worker.pem", "worker.key")


def run_on_ray(command: RayCommand) -> int:
    """Run a server here and its workers on the cluster, to the end of the run."""
    if command.json_file:
        check_writable(command.json_file)
    ray = needed("ray", "ray", "paceline ray")
    _join(ray, command.ray_address)
    from paceline.certificates import make_certificates
    from paceline.server import Started, run_server
    from paceline.server.log import configure_logging

    configure_logging()
    folder = Path(tempfile.mkdtemp(prefix="paceline-ray-"))
    try:
        host = ray.util.get_node_ip_address()
        make_certificates(folder, [host, "127.0.0.1", "localhost"])
        settings = command.run_settings(bind=f"{host}:0", tls_dir=folder, min_workers=command.workers)
        fleet = Fleet(ray, command, {name: (folder / name).read_bytes() for name in _OF_WORKERS})

        def started(what: Started) -> None:
            fleet.start(what.address, lambda: _stop(what.address, folder))

        result = run_server(settings, command.resume, on_started=started)
        fleet.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        ray.shutdown()
    if command.json_file:
        write_json(command.json_file, result.summary)
    sys.stdout.write(f"paceline: {result.outcome.value}: {result.reason}\npaceline: run directory {result.run_dir}\n")
    return of_run(result.outcome.value, try_again=result.try_again, signal=result.signal)


def _join(ray: Any, address: str) -> None:
    """Become a client of the cluster.

    Raises:
        UnavailableError: it cannot be reached.
    """
    match = ADDRESS.fullmatch(address)
    try:
        if match is not None:
            # Ray itself would try for two minutes.
            socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError) as error:
        where = "this machine belongs to none" if address == "auto" else str(error).splitlines()[0]
        raise UnavailableError(f"Ray cluster {address!r} cannot be reached: {where}") from None


def _stop(address: str, tls_dir: Path) -> None:
    from paceline.access import read_access
    from paceline.server.asking import stop

    stop(address, 0.0, 10.0, read_access(tls_dir, None))


class Fleet:
    """The actors of a run, looked after by a thread.

    Args:
        ray: the module.
        files: certificates of a worker, by name.
    """

    def __init__(self, ray: Any, command: RayCommand, files: dict[str, bytes]) -> None:
        self._ray = ray
        self._command = command
        self._files = files
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger()

    def start(self, address: str, stop: Callable[[], None]) -> None:
        """Place all workers; returns at once.

        Args:
            stop: ends the run; called when a worker cannot be had that rounds wait for.
        """

        def look_after() -> None:
            try:
                self._look_after(address)
            except Exception:
                self._log.exception("Ray's cluster fails: the run is stopped")
            if not self._over.is_set():
                stop()

        self._thread = threading.Thread(target=look_after, name="ray", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End looking after them: the run is over, and the workers have heard it."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look_after(self, address: str) -> None:
        """Start workers anew until the run is over, or one has made a mistake that another start does not mend."""
        ray, names = self._ray, self._command.worker_names()
        actors = {name: self._place() for name in names}
        running = {self._begin(actors[name], address, name): name for name in names}
        while running and not self._over.is_set():
            ended, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY_S)
            for reference in ended:
                name = running.pop(reference)
                code, tail = self._ending(reference)
                if code == 0 or self._over.is_set():
                    continue
                self._log.warning(f"worker {name} ended with {code}: {tail}")
                if code in MISTAKES:
                    self._log.error("another start would not mend it: the run is stopped")
                    return
                self._over.wait(LOOK_EVERY_S)
                running[self._begin(actors[name], address, name)] = name
        self._over.wait()
        if running:
            # They have heard that it is over.
            ray.wait(list(running), num_returns=len(running), timeout=LEAVE_S)
        for actor in actors.values():
            ray.kill(actor)

    def _ending(self, reference: Any) -> tuple[int, str]:
        try:
            code, tail = self._ray.get(reference)
            return int(code), str(tail)
        except Exception as error:  # the actor's process, or its node: Ray has many classes for it
            return 1, str(error).splitlines()[0]

    def _place(self) -> Any:
        command, ray = self._command, self._ray
        gpus = command.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0.0) else 0.0
        # Ray places it anew, and calls run again, as often as its node or its process is gone.
        options = {"num_cpus": command.cpus_per_worker, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(**options, max_restarts=-1, max_task_retries=-1)(WorkerProcess)
        return actor.remote(str(Path.cwd()))

    def _begin(self, actor: Any, address: str, name: str) -> Any:
        command = self._command
        arguments = [address, command.job, "--name", name]
        arguments += ["--data", str(command.data)] if command.data is not None else []
        return actor.run.remote(arguments, self._files)
