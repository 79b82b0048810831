"""What `paceline certs init` makes, and what is said of certificates that would not be accepted."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from paceline.certificates import FILES, make_certificates
from paceline.errors import SettingsError, UsageError
from paceline.tls import Side, read_tls
from tests.forged import again, load_key

SIDES: tuple[Side, ...] = ("server", "worker")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    make_certificates(folder, ["main-node", "192.0.2.7"], days=30)
    return folder


def test_both_sides_can_use_what_was_made(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)
    for side in SIDES:
        tls = read_tls(made, side)
        left = tls.ends - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=29) < left < datetime.timedelta(days=30)
        assert b"PRIVATE" not in repr(tls).encode()


def test_the_server_is_known_by_its_names_and_those_of_loopback(made: Path) -> None:
    certificate = x509.load_pem_x509_certificate((made / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["main-node", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("192.0.2.7", "127.0.0.1", "::1")
    ]


def test_keys_are_of_p256_and_for_their_owner_alone(made: Path) -> None:
    for name in FILES:
        if name.endswith(".key"):
            assert isinstance(load_key(made / name).curve, ec.SECP256R1)
            assert stat.S_IMODE((made / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / name))):
        make_certificates(tmp_path, ["main-node"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("host", ["", "a b", "main-node:7070", "-x", "1.2.3", "256.1.1.1", "a/b", "a..b", "x" * 64])
def test_a_host_that_is_none_is_refused_by_its_value(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--host is {host!r}")):
        make_certificates(tmp_path / "tls", [host])
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_out_of_range_are_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match=f"--days is {days}: expected 1 to 3650"):
        make_certificates(tmp_path / "tls", ["main-node"], days)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "file"))):
        make_certificates(tmp_path / "file" / "tls", ["main-node"])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["ca.pem", "pem", "key"])
def test_a_missing_file_is_named(made: Path, side: Side, kind: str) -> None:
    path = made / (kind if kind == "ca.pem" else f"{side}.{kind}")
    path.unlink()
    with pytest.raises(SettingsError, match=re.escape(f"{path} is missing")):
        read_tls(made, side)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(made: Path) -> None:
    (made / "worker.key").chmod(0)
    with pytest.raises(SettingsError, match=r"worker\.key cannot be read"):
        read_tls(made, "worker")


def test_an_expired_certificate_is_named_with_its_end(made: Path) -> None:
    again(made, "worker", from_days=-9, to_days=-2)
    with pytest.raises(SettingsError, match=r"worker\.pem expired at \d{4}-"):
        read_tls(made, "worker")
    read_tls(made, "server")


def test_a_certificate_of_tomorrow_is_named_with_its_beginning(made: Path) -> None:
    again(made, "server", from_days=1, to_days=2)
    with pytest.raises(SettingsError, match=r"server\.pem is valid from \d{4}-.*clock"):
        read_tls(made, "server")


def test_a_self_made_certificate_is_not_of_the_ca(made: Path) -> None:
    again(made, "worker", self_made=True)
    with pytest.raises(SettingsError, match=r"worker\.pem is not of this CA"):
        read_tls(made, "worker")


def test_a_certificate_of_another_ca_is_not_of_this_one(made: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", ["main-node"])
    shutil.copy(tmp_path / "other" / "ca.pem", made)
    with pytest.raises(SettingsError, match=r"server\.pem is not of this CA"):
        read_tls(made, "server")


def test_a_key_of_another_certificate_does_not_match(made: Path) -> None:
    shutil.copy(made / "server.key", made / "worker.key")
    with pytest.raises(SettingsError, match=r"worker\.key does not match .*worker\.pem"):
        read_tls(made, "worker")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("name", ["ca.pem", "worker.pem"])
def test_what_is_no_certificate_is_named(made: Path, name: str, content: bytes) -> None:
    (made / name).write_bytes(content)
    with pytest.raises(SettingsError, match=rf"{name} holds no certificate"):
        read_tls(made, "worker")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_named(made: Path, content: bytes) -> None:
    (made / "worker.key").write_bytes(content)
    with pytest.raises(SettingsError, match=r"worker\.key holds no key"):
        read_tls(made, "worker")
