"""Makes certificates for a server and its workers: a CA of their own, and one certificate for each side.

What a certificate may be used for stands in it: a worker's key cannot play the server.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paceline.errors import UsageError
from paceline.secret_files import write_secret

# The server is asked by its own machine too: a health check, a status.
ALWAYS = ("localhost", "127.0.0.1", "::1")
DAYS = 365
_MOST_DAYS = 3650
# Clocks are not all alike.
_BEFORE = datetime.timedelta(hours=1)
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_DNS = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "worker.pem", "worker.key")


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path, hosts: Sequence[str], days: int = DAYS) -> tuple[Path, ...]:
    """Write ca, server and worker certificates with their keys into a folder, which is made.

    Args:
        hosts: names and addresses by which workers reach the server; those of loopback are added.
        days: they are valid so long.

    Returns:
        The files.

    Raises:
        UsageError: a host is none, days are out of range, or a file is there already: then nothing was written.
    """
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *ALWAYS))]
    if not hosts:
        raise UsageError("no host is given: expected --host with the name by which workers reach the server")
    if not 1 <= days <= _MOST_DAYS:
        raise UsageError(f"--days is {days}: expected 1 to {_MOST_DAYS}")
    paths = tuple(folder / name for name in FILES)
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} is there already: expected a new folder, no file is ever overwritten")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from None
    authority = _authority(days)
    server = _leaf(authority, "paceline server", ExtendedKeyUsageOID.SERVER_AUTH, names, days)
    worker = _leaf(authority, "paceline worker", ExtendedKeyUsageOID.CLIENT_AUTH, [], days)
    for certificate, key, pair in zip(paths[::2], paths[1::2], (authority, server, worker), strict=True):
        write_secret(key, _key_pem(pair.key))
        write_secret(certificate, pair.certificate.public_bytes(serialization.Encoding.PEM))
        certificate.chmod(0o644)
    return paths


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    # Four numbers that are no address are a mistyped one.
    if len(host) > 253 or not _DNS.fullmatch(host) or re.fullmatch(r"[\d.]+", host):
        raise UsageError(f"--host is {host!r}: expected a host's name or address, without a port")
    return x509.DNSName(host)


def _authority(days: int) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs of one name would be taken for each other, and a wrong one for a bad signature.
    name = _name(f"paceline CA {x509.random_serial_number():040x}"[:32])
    builder = (
        _builder(name, key, days)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _leaf(
    authority: _Pair, name: str, purpose: x509.ObjectIdentifier, hosts: Sequence[x509.GeneralName], days: int
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = (
        _builder(_name(name), key, days)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
