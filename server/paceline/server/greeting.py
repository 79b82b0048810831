"""What every worker is welcomed with, and how large the messages may be that it sends."""

from __future__ import annotations

from paceline.protos import coordinator_pb2 as pb
from paceline.protos.framing import CHUNK_BYTES, PROTOCOL_VERSION, crc32c
from paceline.server.preparation import Preparation
from paceline.server.sessions import Greeting
from paceline.settings import RunSettings
from paceline.version import __version__

_UNCOUNTED = ("malenia", "mindflayer")


def message_bytes(settings: RunSettings, prepared: Preparation) -> int:
    """Give the size of the largest message that a worker may have to send."""
    # Beside a chunk or payload: a traceback, the fingerprint of another job, and 40 bytes for each task of a manifest.
    # Where a round's tasks are not counted, the fastest worker may do many.
    tasks = max(settings.tasks, 65_536) if settings.policy in _UNCOUNTED else settings.tasks
    names = 4 * len(prepared.fingerprint.to_json())
    return max(CHUNK_BYTES, settings.inline_bytes) + 2**20 + names + 40 * tasks


def greeting(settings: RunSettings, prepared: Preparation) -> Greeting:
    """Write the welcome; what does not change with a version is in it where that is small."""
    layout = prepared.flat.layout
    constants = (
        bytes(prepared.flat.constants_view) if layout.nbytes - layout.version_nbytes <= settings.inline_bytes else b""
    )
    return Greeting(
        welcome=pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            package_version=__version__,
            job=settings.job,
            settings_json=settings.shared().model_dump_json(),
            job_fingerprint_json=prepared.fingerprint.to_json(),
            version_bytes=layout.version_nbytes,
            constants_bytes=layout.nbytes - layout.version_nbytes,
            constants=constants,
            constants_crc32c=crc32c(constants) if constants else 0,
        ),
        fingerprint=prepared.fingerprint,
    )
