"""Shards as a dataset: what is in them, in which order tasks go through them, and what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paceline.errors import TaskError, UsageError
from paceline.fingerprint import differences, fingerprint
from paceline.flat import build_model
from paceline.job import Job
from paceline.loading import build_dataset, load_job
from paceline.streams import Lines, ParquetRows, Shard, ShardCache, Shards, TarSamples, read_index, write_index
from paceline.task_loading import TaskLoader, samples_of


def write_lines(folder: Path, *sizes: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number}.txt")
        paths[-1].write_text("".join(f"{number}:{line}\n" for line in range(size)))
    return paths


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Numbers(Job):
    """Learns nothing of the lines of its shards."""

    def shards(self) -> Shards:
        assert self.data is not None
        return Shards(read_index(self.data / "index.json"), Lines, mixed=2)

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return model(torch.ones(len(batch), 1)).mean()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def collate(self, samples: Any) -> Any:
        return list(samples)


def numbers(folder: Path, *sizes: int) -> Numbers:
    write_index(folder / "index.json", write_lines(folder, *sizes), Lines)
    job = Numbers()
    job.data = folder
    return job


def test_an_epoch_of_tasks_gives_every_line_once(tmp_path: Path) -> None:
    job = numbers(tmp_path, 8, 12, 4)
    loader = TaskLoader(job, build_dataset(job, 5, 4), 5, 4)
    lines = [line for task in range(6) for line in loader.load(task).parts[0]]
    expected = {f"{number}:{line}" for number, size in enumerate((8, 12, 4)) for line in range(size)}
    assert set(lines) == expected
    assert len(lines) == 24
    assert [line for task in range(6, 12) for line in loader.load(task).parts[0]] != lines, "epochs differ"


def test_samples_come_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    shards = Shards(
        [Shard(str(path), 5) for path in write_lines(tmp_path, 5, 5)], Lines, decode=lambda line: f"<{line}>"
    )
    assert shards.__getitems__([9, 0, 5, 1]) == ["<1:4>", "<0:0>", "<1:0>", "<0:1>"]
    assert shards[7] == "<1:2>"


def test_few_shards_are_open_at_a_time(tmp_path: Path) -> None:
    opened: list[str] = []

    def reader(path: Path) -> Lines:
        opened.append(path.stem)
        return Lines(path)

    shards = Shards([Shard(str(path), 4) for path in write_lines(tmp_path, 4, 4, 4, 4)], reader, mixed=1)
    for index in (0, 1, 4, 5, 8, 9, 0):
        shards[index]
    assert opened == ["0", "1", "2", "0"]
    assert len(shards._opened) == 2


def test_an_index_says_what_is_in_the_shards_wherever_it_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_lines(tmp_path / "here", 3, 7)
    written = write_index(tmp_path / "here" / "index.json", paths, Lines)
    assert [(Path(shard.url).name, shard.samples, shard.nbytes) for shard in written] == [
        ("0.txt", 3, 12),
        ("1.txt", 7, 28),
    ]
    monkeypatch.chdir(tmp_path)
    assert read_index("here/index.json") == written
    assert read_index(f"file://{tmp_path}/here/index.json")[0].url == f"file://{tmp_path}/here/0.txt"
    away = write_index(tmp_path / "away.json", paths, Lines, base="https://data.example/shards/")
    assert [shard.url for shard in away] == ["https://data.example/shards/0.txt", "https://data.example/shards/1.txt"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no list of shards"),
        ("[]", "is no list of shards"),
        ('{"shards": [{"url": "a"}]}', "is no list of shards"),
        ('{"shards": 7}', "is no list of shards"),
        ('{"shards": []}', "there are none"),
        ('{"shards": [{"url": "a", "samples": 0}]}', "has 0 samples: expected at least 1"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UsageError, match=told):
        Shards(read_index(tmp_path / "index.json"), Lines)


def test_an_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index '.*none.json' cannot be read: FileNotFoundError"):
        read_index(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "does not exist on this machine"),
        (lambda path: path.write_text("one\n"), "has 1 samples: expected 8"),
    ],
)
def test_a_shard_that_is_not_what_the_index_says_fails_its_tasks_by_name(
    tmp_path: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    job = numbers(tmp_path, 8)
    spoil(tmp_path / "0.txt")
    with pytest.raises(TaskError, match=rf"task 0: loading it raised ShardError: shard '.*0.txt' {told}"):
        TaskLoader(job, build_dataset(job, 5, 4), 5, 4).load(0)


def test_two_machines_compare_their_lists_and_read_no_shard(tmp_path: Path) -> None:
    def known(job: Numbers) -> Any:
        return fingerprint(job, build_model(job, 1).layout, build_dataset(job, 1, 4), 1)

    one, same, longer, other = (numbers(tmp_path / name, *sizes) for name, *sizes in (
        ("a", 8, 8), ("b", 8, 8), ("c", 8, 8, 8), ("d", 8, 9),
    ))  # fmt: skip
    server = known(one)
    for path in tmp_path.glob("b/*.txt"):
        path.unlink()
    assert differences(server, known(same)) == []
    assert differences(server, known(longer)) == ["the dataset has 2 shards on the server, 3 here"]
    assert differences(server, known(other)) == ["the dataset has 16 samples on the server, 17 here"]
    rows = json.loads((tmp_path / "a" / "index.json").read_text())["shards"]
    (tmp_path / "a" / "index.json").write_text(json.dumps({"shards": rows[::-1]}))
    told = differences(server, known(one))
    assert told == ["the shards differ in order or content: 2 of the 2 compared, first at position 0 of the dataset"]


def test_tar_members_of_one_name_are_a_sample(tmp_path: Path) -> None:
    members = {"a/1.jpg": b"one", "a/1.cls": b"0", "a/2.jpg": b"two", "a/2.seg.png": b"mask", "b/2.jpg": b"three"}
    samples = TarSamples(write_tar(tmp_path / "t.tar", members))
    assert [samples[index] for index in range(len(samples))] == [
        {"__key__": "a/1", "jpg": b"one", "cls": b"0"},
        {"__key__": "a/2", "jpg": b"two", "seg.png": b"mask"},
        {"__key__": "b/2", "jpg": b"three"},
    ]


def test_a_compressed_tar_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w:gz"):
        pass
    with pytest.raises(UsageError, match=r"t\.tar is compressed: expected a plain tar file"):
        TarSamples(tmp_path / "t.tar")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"a\nb\r\n\nc", ["a", "b", "", "c"]),
        (b"a\n", ["a"]),
        ("ä\nö\n".encode(), ["ä", "ö"]),
        (b"", []),
    ],
)
def test_lines_are_those_between_line_ends(tmp_path: Path, text: bytes, lines: list[str]) -> None:
    (tmp_path / "t").write_bytes(text)
    found = Lines(tmp_path / "t")
    assert [found[index] for index in range(len(found))] == lines


def test_rows_of_parquet_are_dicts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"x": [1, 2, 3], "y": ["a", "b", "c"]}), tmp_path / "t.parquet")
    rows = ParquetRows(tmp_path / "t.parquet")
    assert (len(rows), rows[1]) == (3, {"x": 2, "y": "b"})
    assert ParquetRows(tmp_path / "t.parquet", ["y"]).__getitems__([2, 0]) == [{"y": "c"}, {"y": "a"}]


def test_shards_cannot_be_cut_into_parts_of_workers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="partition is 2, but the data are shards"):
        build_dataset(numbers(tmp_path, 8, 8), 1, 4, 2)


def test_a_job_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from tests.streams.test_shards import Numbers\n"
        "from paceline.job import Job\n"
        "class Bare(Job):\n"
        "    model, loss, optimizer = Numbers.model, Numbers.loss, Numbers.optimizer\n"
    )
    with pytest.raises(UsageError, match=r"job Bare in .* lacks dataset\(\) \(or shards\(\)\)"):
        load_job(f"{tmp_path}/job.py:Bare")


def test_the_samples_of_a_task_that_failed_are_those_it_had(tmp_path: Path) -> None:
    job = numbers(tmp_path, 8, 12, 4)
    dataset = build_dataset(job, 5, 4)
    batch = TaskLoader(job, dataset, 5, 4).load(3).parts[0]
    assert [dataset[index] for index in samples_of(dataset, 5, 3, 4).tolist()] == batch


def test_the_shards_that_come_next_are_copied_once_and_ahead(tmp_path: Path) -> None:
    listed = [Shard(f"file://{path}", 4) for path in write_lines(tmp_path / "there", 4, 4, 4)]
    shards = Shards(listed, Lines).use(ShardCache(tmp_path / "cache"))
    present, following = shards._of(4).shards_at(1, 0)
    shards.begin_next(1, 0, 4)
    assert shards._ahead is not None
    first = shards._ahead
    first.join(10)
    copies = [path.name.partition("-")[2] for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert copies == [f"{number}.txt" for number in following]
    assert present != following
    shards.begin_next(1, 0, 4)
    assert shards._ahead is first, "they are not looked for again"
