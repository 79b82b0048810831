from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.errors import SettingsError
from paceline.settings import WORKER_NAME
from paceline.worker.names import claim_slot

HOLDER = """
import sys
from pathlib import Path
from paceline.worker.names import claim_slot
slot = claim_slot(Path(sys.argv[1]), "desk")
print(slot.name, flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)


def test_two_processes_have_two_names_and_a_restart_keeps_its_own(tmp_path: Path) -> None:
    first, first_name = holder(tmp_path)
    second, second_name = holder(tmp_path)
    try:
        assert (first_name, second_name) == ("desk-1", "desk-2")
        # However it ends, its name is free again.
        first.send_signal(signal.SIGKILL)
        finish(first)
        again, again_name = holder(tmp_path)
        finish(again)
        assert again_name == "desk-1"
    finally:
        finish(second)


def test_slot_that_is_given_back_is_free(tmp_path: Path) -> None:
    with claim_slot(tmp_path, "desk") as slot:
        assert slot.name == "desk-1"
        with claim_slot(tmp_path, "desk") as other:
            assert other.name == "desk-2"
    with claim_slot(tmp_path, "desk") as slot:
        assert slot.name == "desk-1"


@pytest.mark.parametrize("host", ["desk", "a.b-c_d", "schön und gut/..", "", "x" * 200])
def test_every_host_gives_a_name_that_the_server_takes(tmp_path: Path, host: str) -> None:
    with claim_slot(tmp_path, host) as slot:
        assert WORKER_NAME.fullmatch(slot.name)


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="--name"):
        claim_slot(link, "desk")


def test_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--name"):
        claim_slot(tmp_path / "file" / "folder", "desk")


def test_folder_is_the_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with claim_slot(folder, "desk"):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == os.getuid()
