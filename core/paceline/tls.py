"""Reads a folder of certificates and says at once what is wrong with them, by name.

gRPC says of a bad certificate that a handshake failed, and to one side only; so all that can be seen here is.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from paceline.errors import SettingsError

Side = Literal["server", "worker"]


@dataclass(frozen=True, slots=True)
class Tls:
    """One side's certificates, checked.

    Attributes:
        folder, side: where they came from.
        ca: of the other side's certificate; PEM, as are all.
        ends: the first of them is valid until then.
    """

    folder: Path
    side: Side
    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    ends: datetime.datetime

    @property
    def ca_path(self) -> Path:
        """File of the CA."""
        return self.folder / "ca.pem"

    @property
    def certificate_path(self) -> Path:
        """File of this side's certificate."""
        return self.folder / f"{self.side}.pem"

    @property
    def key_path(self) -> Path:
        """File of its key."""
        return self.folder / f"{self.side}.key"


def read_tls(folder: Path, side: Side) -> Tls:
    """Read what one side needs: ca.pem and SIDE.pem with SIDE.key.

    Raises:
        SettingsError: a file is missing or unreadable, or a certificate would not be accepted.
    """
    ca, certificate, key = (_read(folder, name) for name in ("ca.pem", f"{side}.pem", f"{side}.key"))
    path = folder / f"{side}.pem"
    authorities = _certificates(folder / "ca.pem", ca)
    chain = _certificates(path, certificate)
    ends = [_valid_until(folder / "ca.pem", authorities[0]), _valid_until(path, chain[0])]
    for place, issued in enumerate(chain):
        if not any(_issued_by(issued, issuer) for issuer in (*chain[place + 1 :], *authorities)):
            raise SettingsError(f"{path} is not of this CA: expected a certificate that {folder / 'ca.pem'} signed")
    _check_key(folder / f"{side}.key", key, chain[0], path)
    return Tls(folder, side, ca, certificate, key, min(ends))


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            f"{folder / name} is missing: expected the files that `paceline certs init` makes"
        ) from None
    except OSError as error:
        raise SettingsError(f"{folder / name} cannot be read: {error.strerror}") from None


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise SettingsError(f"{path} holds no certificate: expected PEM, -----BEGIN CERTIFICATE-----") from None


def _valid_until(path: Path, certificate: x509.Certificate) -> datetime.datetime:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    if now >= ends:
        raise SettingsError(f"{path} expired at {ends:%Y-%m-%d %H:%M} UTC: make new certificates")
    if now < begins:
        raise SettingsError(f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC on: is this machine's clock right?")
    return ends


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_key(path: Path, data: bytes, certificate: x509.Certificate, certificate_path: Path) -> None:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise SettingsError(f"{path} holds no key: expected PEM without a password") from None
    if key.public_key() != certificate.public_key():
        raise SettingsError(f"{path} does not match {certificate_path}: expected the key of that certificate")
