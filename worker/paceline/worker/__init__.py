"""The worker: computes tasks for a server. `run_worker` runs one as a process."""

from paceline.worker.service import run_worker

__all__ = ["run_worker"]
