"""Certificates that no `paceline certs init` makes: expired, not valid yet, signed by nobody."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


def again(
    folder: Path,
    side: str,
    *,
    from_days: int = -1,
    to_days: int = 1,
    self_made: bool = False,
    hosts: Sequence[str] = (),
) -> None:
    """Write a side's certificate anew, for the same key, valid from and to so many days from now.

    Args:
        hosts: instead of those that it has.
    """
    path, key = folder / f"{side}.pem", load_key(folder / f"{side}.key")
    old = x509.load_pem_x509_certificate(path.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.subject if self_made else old.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + from_days * DAY)
        .not_valid_after(now + to_days * DAY)
    )
    for extension in old.extensions:
        value = extension.value
        if hosts and isinstance(value, x509.SubjectAlternativeName):
            value = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(value, critical=extension.critical)
    signer = key if self_made else load_key(folder / "ca.key")
    path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
