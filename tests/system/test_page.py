"""The live page and a report in a real browser: they load, they change, their console is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import browsing
from tests.system.cluster import cluster, free_port, paceline, until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

JOB = "tests/jobs.py:DigitsLike"
ARGS = ("--tasks", "8", "--micro-batch", "8", "--min-workers", "2", "--price", "3.6")
LIMIT_MS = 60_000
ROUND = "document.querySelector('#tiles dd').firstChild.data"
COLORS = """() => {
  const canvas = document.getElementById("timeline");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
  return found.size;
}"""


def wait_until(page: Any, condition: str, arg: Any = None) -> None:
    """Wait for a condition in the page's own language."""
    page.wait_for_function(condition, arg=arg, timeout=LIMIT_MS)


def test_the_page_follows_a_run_and_says_when_its_server_is_gone(tmp_path: Path) -> None:
    port = free_port()
    with (
        cluster(tmp_path, JOB, *ARGS, "--rounds", "100000", "--eval-every", "20", "--web-port", str(port)) as run,
        browsing(width=390, dark=True) as watched,
    ):
        page = watched.page
        workers = [run.worker(name, "--delay", f"const:{delay}") for name, delay in (("fast", 0.02), ("slow", 0.05))]
        run.at_round(3)
        page.goto(f"http://127.0.0.1:{port}/")
        wait_until(page, f"() => document.querySelector('#tiles dd') && parseInt({ROUND}) >= 10")
        first = page.evaluate(f"() => {ROUND}")
        wait_until(page, f"before => {ROUND} !== before", first)
        rows = page.locator("#workers tbody tr")
        assert sorted(rows.nth(i).locator("td").first.inner_text() for i in range(rows.count())) == ["fast", "slow"]
        assert page.evaluate(COLORS) >= 4  # computing, waiting, transferring and words
        assert page.locator(".uplot canvas").count() >= 2
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
        assert "uniform" in page.locator("#ways").inner_text()
        watched.faults.clear()
        run.server.kill()
        wait_until(page, "() => document.getElementById('notice').textContent.includes('does not answer')")
        # The browser itself says that nobody listens.
        assert all("ERR_CONNECTION" in fault for fault in watched.faults), watched.faults
        watched.faults.clear()
        page.close()
        for worker in workers:
            worker.kill()


def test_with_tokens_the_page_asks_for_one(tmp_path: Path) -> None:
    tokens, port = tmp_path / "tokens.json", free_port()

    def token(role: str) -> str:
        return paceline("token", "create", "--tokens", str(tokens), "--name", role, "--role", role).stdout.strip()

    viewer, worker = token("viewer"), token("worker")
    guarded = ("--tokens", str(tokens), "--web-port", str(port))
    with cluster(tmp_path, JOB, *ARGS, "--rounds", "5", *guarded) as run, browsing() as watched:
        page = watched.page
        until(lambda: "live page" in run.log("server"), "the page is served")
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#login", timeout=LIMIT_MS)
        page.fill("#token", worker)
        page.click("#login button")
        wait_until(page, "() => document.getElementById('notice').textContent.includes('role worker')")
        page.fill("#token", viewer)
        page.click("#login button")
        wait_until(page, "() => document.getElementById('state').textContent === 'waiting'")
        # What the browser says of 401 and 403.
        assert all("status of 40" in fault for fault in watched.faults), watched.faults
        watched.faults.clear()


def test_a_report_of_two_runs_shows_either(tmp_path: Path) -> None:
    for name in ("a", "b"):
        args = ("--workers", "2", "--rounds", "12", "--tasks", "6", "--micro-batch", "8")
        done = paceline("run", JOB, *args, "--run-dir", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    out = tmp_path / "report.html"
    done = paceline("report", str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(out))
    assert done.returncode == 0, done.stderr
    with browsing() as watched:
        page = watched.page
        page.goto(out.as_uri())
        assert page.locator("#comparing tbody tr").count() == 2
        assert page.locator("#dir").inner_text() == str(tmp_path / "a")
        page.select_option("#runs", "1")
        assert page.locator("#dir").inner_text() == str(tmp_path / "b")
        assert page.evaluate(COLORS) >= 4
