"""Shards behind a real web server that fails now and then, real workers with small caches, one of them killed."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from examples.image_folder import pack
from tests.examples.test_image_folder import write_pictures
from tests.system.cluster import assert_bit_equal, cluster, paceline

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(500)]

JOB = "examples/image_folder.py:PictureShards"
FLAGS = ("--tasks", "4", "--micro-batch", "10", "--sums", "exact", "--seed", "3", "--rounds", "8")


class Web(http.server.ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        asked: how often each file was, whole.
        failing: so many answers are refused first.
        gone: names that it does not have any more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.failing = 0
        self.gone: set[str] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Web

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(args[2].folder))

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if self.server.failing or name in self.server.gone:
            self.server.failing -= bool(self.server.failing)
            self.send_error(503)
            return
        self.server.asked[name] += 1
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def web(folder: Path) -> Iterator[Web]:
    server = Web(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[tuple[Web, Path]]:
    """Eight shards of 20 pictures on a web server, and the folder that the machines have."""
    pytest.importorskip("aiohttp")
    write_pictures(tmp_path / "pictures" / "train", 80, 0)
    write_pictures(tmp_path / "pictures" / "test", 10, 1)
    (tmp_path / "away").mkdir()
    with web(tmp_path / "away") as server:
        assert pack(tmp_path / "pictures", tmp_path / "away", 20, server.url) == 8
        here = tmp_path / "here"
        here.mkdir()
        for name in ("index.json", "classes.json", "test"):
            (tmp_path / "away" / name).rename(here / name)
        yield server, here


def run(tmp_path: Path, *args: str) -> dict[str, Any]:
    done = paceline("run", JOB, *FLAGS, *args, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return found


@pytest.mark.parametrize("loaders", ["0", "2"])
def test_the_bits_do_not_depend_on_workers_caches_or_failures(
    tmp_path: Path, shards: tuple[Web, Path], loaders: str
) -> None:
    server, here = shards
    server.failing = 3
    sizes = [row["nbytes"] for row in json.loads((here / "index.json").read_text())["shards"]]
    small = 5 * max(sizes)
    common = ("--data", str(here), "--loaders", loaders)
    one = run(tmp_path, *common, "--workers", "1", "--cache", str(tmp_path / "large"), "--run-dir", str(tmp_path / "1"))
    assert sum(server.asked.values()) == 8, "each shard was copied once"
    cache = ("--cache", str(tmp_path / "small"), "--cache-size", str(small))
    three = run(tmp_path, *common, "--workers", "3", *cache, "--run-dir", str(tmp_path / "3"))
    assert (one["fingerprint"], one["loss"]) == (three["fingerprint"], three["loss"])
    kept = [path.stat().st_size for path in (tmp_path / "small").iterdir() if path.suffix != ".lock"]
    assert sum(kept) <= small
    again = paceline("replay", str(tmp_path / "3"))
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_killed_worker_costs_no_sample(tmp_path: Path, shards: tuple[Web, Path]) -> None:
    _, here = shards
    data = ("--data", str(here))
    with cluster(tmp_path, JOB, *FLAGS, *data, "--policy", "uniform", "--min-workers", "2") as machines:
        for name in ("w1", "w2"):
            machines.worker(name, *data, "--cache", str(tmp_path / name))
        machines.at_round(4)
        machines.processes["w2"].kill()
        machines.end("server", "w1")
        got = machines.model()
    run(tmp_path, *data, "--workers", "1", "--cache", str(tmp_path / "w1"), "--run-dir", str(tmp_path / "plain"))
    assert_bit_equal(got, load_file(tmp_path / "plain" / "model.safetensors"))


def test_a_shard_that_stays_away_ends_the_run_with_its_name(tmp_path: Path, shards: tuple[Web, Path]) -> None:
    server, here = shards
    server.gone = {f"train-{number:03}.tar" for number in range(8)}
    one = ("--workers", "1", "--tasks", "1", "--rounds", "1", "--cache", str(tmp_path / "cache"))
    done = paceline("run", JOB, *FLAGS, "--data", str(here), *one)
    assert done.returncode == 1, done.stderr
    assert "ShardError: shard 'http://127.0.0.1:" in done.stderr
    assert "cannot be had (5 attempts)" in done.stderr
