"""The file of tokens: what is in it, who can read it, and what is said of one that is none."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import stat
import threading
from pathlib import Path

import pytest

from paceline.access import VARIABLE, read_access
from paceline.errors import SettingsError, UsageError
from paceline.tokens import Role, Token, create_token, find_token, now_utc, read_tokens, revoke_tokens


def by_id(path: Path) -> dict[str, Token]:
    return {token.id: token for token in read_tokens(path)}


def test_a_token_is_found_and_its_secret_is_nowhere_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text = create_token(path, "w1", Role.WORKER, None)
    assert re.fullmatch(r"pl_[0-9a-f]{12}_[0-9a-f]{64}", text)
    secret = text.split("_")[2]
    assert secret not in path.read_text()
    (row,) = json.loads(path.read_text())["tokens"]
    assert row["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    found = find_token(by_id(path), text)
    assert found is not None
    assert (found.name, found.role, found.fault(now_utc())) == ("w1", Role.WORKER, None)


def test_a_wrong_secret_an_unknown_id_and_no_token_at_all_are_not_found(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text = create_token(path, "w1", Role.WORKER, None)
    other = create_token(path, "w2", Role.WORKER, None)
    wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
    swapped = "_".join((*text.split("_")[:2], other.split("_")[2]))
    unknown = "pl_" + "0" * 12 + "_" + text.split("_")[2]
    nobodys = "pl_" + "0" * 12 + "_" + "0" * 64
    for bad in (wrong, swapped, unknown, nobodys, "", text + "0", " " + text, "pl__", "x" * 10_000):
        assert find_token(by_id(path), bad) is None
    assert find_token({}, "") is None


def test_the_file_is_for_its_owner_alone_also_when_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    create_token(path, "w1", Role.WORKER, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    revoke_tokens(path, "w1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["tokens.json"]


def test_a_token_expires_when_it_says(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    create_token(path, "w1", Role.WORKER, 3600.0)
    (token,) = read_tokens(path)
    second = datetime.timedelta(seconds=1)
    assert token.expires == token.created + 3600 * second
    assert token.fault(token.expires - second) is None
    assert "expired at" in str(token.fault(token.expires))


def test_revoking_by_id_hits_one_and_by_name_all(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    ids = [create_token(path, name, Role.WORKER, None).split("_")[1] for name in ("w1", "w1", "w1", "w2")]
    assert [token.id for token in revoke_tokens(path, ids[1])] == [ids[1]]
    assert [token.id for token in revoke_tokens(path, "w1")] == [ids[0], ids[2]]
    assert revoke_tokens(path, "w1") == ()
    faults = {token.id: token.fault(now_utc()) for token in read_tokens(path)}
    assert faults[ids[3]] is None
    assert all("was revoked at" in str(faults[token_id]) for token_id in ids[:3])
    with pytest.raises(UsageError, match=r"no token of .* has the id or name 'w9'"):
        revoke_tokens(path, "w9")


def test_tokens_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    threads = [
        threading.Thread(target=create_token, args=(path, f"w{number}", Role.WORKER, None)) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.name for token in read_tokens(path)) == sorted(f"w{number}" for number in range(20))


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../w", "w\n"])
def test_a_name_that_no_worker_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--name is {name!r}")):
        create_token(tmp_path / "tokens.json", name, Role.WORKER, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e30])
def test_a_time_that_is_none_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(UsageError, match="--expires is"):
        create_token(tmp_path / "tokens.json", "w1", Role.WORKER, seconds)
    assert not list(tmp_path.iterdir())


GOOD = {
    "id": "0" * 12,
    "name": "w1",
    "role": "worker",
    "sha256": "0" * 64,
    "created": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"tokens": 3}',
        '{"tokens": [], "more": 1}',
        json.dumps({"tokens": [{**GOOD, "role": "king"}]}),
        json.dumps({"tokens": [{**GOOD, "sha256": "zz"}]}),
        json.dumps({"tokens": [{**GOOD, "created": "2026-01-01T00:00:00"}]}),
        json.dumps({"tokens": [{**GOOD, "name": "a b"}]}),
        json.dumps({"tokens": [{**GOOD, "secret": "x"}]}),
        json.dumps({"tokens": [GOOD] * 10_001}),
        "[" * 100_000,
        "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_file_that_is_none_is_named_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"tokens\.json is no file of tokens") as caught:
        create_token(path, "w1", Role.WORKER, None)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content.encode("latin-1")


def test_a_good_file_is_read_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"tokens": [GOOD]}))
    (token,) = read_tokens(path)
    assert (token.id, token.name, token.expires, token.revoked) == ("0" * 12, "w1", None, None)


def test_a_missing_or_huge_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    with pytest.raises(UsageError, match=r"tokens\.json cannot be read: No such file"):
        read_tokens(path)
    with path.open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(UsageError, match="has more than 8388608 bytes"):
        read_tokens(path)
    with pytest.raises(UsageError, match=r"cannot be written"):
        create_token(tmp_path / "no" / "tokens.json", "w1", Role.WORKER, None)


def test_a_token_comes_from_its_file_or_the_environment(tmp_path: Path) -> None:
    first = create_token(tmp_path / "tokens.json", "w1", Role.WORKER, None)
    second = create_token(tmp_path / "tokens.json", "w1", Role.WORKER, None)
    (tmp_path / "w1.token").write_text(f"{first}\n")
    assert read_access(None, tmp_path / "w1.token", {VARIABLE: second}).token == first
    assert read_access(None, None, {VARIABLE: second}).token == second
    assert read_access(None, None, {VARIABLE: ""}).token == ""
    assert read_access(None, None, {}).token == ""
    assert first not in repr(read_access(None, tmp_path / "w1.token", {}))


@pytest.mark.parametrize("content", [b"", b"secret", b"\xff" * 300, b"pl_x_y", b"\n\n"])
def test_a_token_file_without_a_token_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w1.token"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"w1\.token holds no token: expected pl_<id>_<secret>"):
        read_access(None, path, {})
    with pytest.raises(SettingsError, match="PACELINE_TOKEN holds no token"):
        read_access(None, None, {VARIABLE: "mistaken"})
    with pytest.raises(SettingsError, match=r"none\.token cannot be read"):
        read_access(None, tmp_path / "none.token", {})
