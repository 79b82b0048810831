"""A file of bytes is mapped, cut into windows, and learnt; what is wrong with it is said in one line."""

import sysconfig
from pathlib import Path

import pytest
import torch

from examples.token_file import CONTEXT, ByteModel, Windows, pack
from paceline.errors import UsageError
from paceline.evaluation import validate
from paceline.task_loading import TaskLoader
from tests.examples.training import train


@pytest.fixture
def job(tmp_path: Path) -> ByteModel:
    texts = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:30]
    pack(tmp_path, texts)
    made = ByteModel()
    made.data = tmp_path
    return made


def test_the_texts_come_whole_and_in_order_and_the_end_is_the_test(tmp_path: Path) -> None:
    for name, text in (("a", b"a" * 60), ("b", b"b" * 40)):
        (tmp_path / name).write_bytes(text)
    assert pack(tmp_path / "data", [tmp_path / "a", tmp_path / "b"]) == 100
    assert (tmp_path / "data" / "train.bin").read_bytes() == b"a" * 60 + b"b" * 35
    assert (tmp_path / "data" / "test.bin").read_bytes() == b"b" * 5


def test_windows_share_only_their_border(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(bytes(range(3 * CONTEXT + 1)))
    windows = Windows(tmp_path / "f.bin")
    assert len(windows) == 3
    assert windows[1].tolist() == list(range(CONTEXT, 2 * CONTEXT + 1))
    assert windows[0][-1] == windows[1][0]


def test_it_learns(job: ByteModel) -> None:
    model = train(job, rounds=40, batch=16)
    loader = TaskLoader(job, job.dataset(), 0, 16, validation=job.validation())
    bits = validate(job, model, loader, 16, 0)["bits_per_byte"]
    # 8 bits for a model that knows nothing, about 4.5 for one that knows how often each byte comes.
    assert bits < 4.7


def test_a_byte_does_not_see_what_follows(job: ByteModel) -> None:
    model = job.model().eval()
    text = job.dataset()[0][None, :-1]
    changed = text.clone()
    changed[0, 40:] = (changed[0, 40:] + 1) % 256
    with torch.no_grad():
        torch.testing.assert_close(model(text)[0, :40], model(changed)[0, :40])


@pytest.mark.parametrize(
    ("content", "told"), [(None, "does not exist: make it with"), (b"short", "has 5 bytes: expected at least 65")]
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "train.bin").write_bytes(content)
    job = ByteModel()
    job.data = tmp_path
    with pytest.raises(UsageError, match=told):
        job.dataset()


def test_without_a_folder_it_is_asked_for() -> None:
    with pytest.raises(UsageError, match="this job needs --data"):
        ByteModel().dataset()
