"""What a server says of itself when it begins."""

from __future__ import annotations

import datetime
from pathlib import Path

import structlog

from paceline.protos.memory import tune_malloc
from paceline.server.address import Address
from paceline.server.preparation import raise_descriptor_limit
from paceline.settings import RunSettings
from paceline.tls import Tls
from paceline.version import __version__

EXPIRES_SOON = datetime.timedelta(days=14)
# What a stranger on the network can do, without tokens and with them.
_DANGER = (
    "join this run, read the model and change it",
    "be let in with a token only, but who is on the way can read tokens and the model",
)


def announce(settings: RunSettings, address: Address, tls: Tls | None, run_dir: Path, notes: tuple[str, ...]) -> None:
    """Say where it serves what, and how far it is guarded.

    Args:
        address: where it really listens.
        notes: what else people should hear.
    """
    log = structlog.get_logger()
    log.info(f"paceline {__version__} serves {settings.job} on {address}", run_dir=str(run_dir))
    for note in notes:
        log.info(note)
    log.info(tune_malloc())
    log.info(raise_descriptor_limit())
    if tls is not None:
        log.info(f"TLS: only who has a certificate of {tls.ca_path} is heard")
        if tls.ends - datetime.datetime.now(datetime.UTC) < EXPIRES_SOON:
            log.warning(f"certificates in {tls.folder} expire at {tls.ends:%Y-%m-%d %H:%M} UTC")
    elif not address.is_loopback:
        log.warning(
            f"INSECURE: whoever can reach {address} can {_DANGER[settings.tokens is not None]}; "
            "nothing is encrypted (--insecure)"
        )
    if settings.tokens is not None:
        log.info(f"tokens: only who has one of {settings.tokens} is let in")
