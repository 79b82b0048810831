"""`paceline check`: tries a job out on this machine before it is run on many."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from paceline.cli.commands import RunCommand
from paceline.cli.configuration import build, gather
from paceline.cli.json_file import check_writable, write_json
from paceline.link_rates import parse_rate

EXAMPLES = (
    "paceline check my_job.py:MyJob --data /data/pictures",
    "paceline check my_job.py:MyJob --tasks 32 --workers 8 --link 100Mbit --json check.json",
)


def register_check(app: typer.Typer) -> None:
    """Add check to the commands."""
    app.command("check", epilog="\n\n".join(["Examples:", *(f"  [bold]{line}[/bold]" for line in EXAMPLES)]))(check)


def check(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The job: path/file.py:Class or package.module:Class.", show_default=False),
    ],
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with the data.")] = None,
    micro_batch: Annotated[str | None, typer.Option(metavar="N", help="Samples per task.")] = None,
    tasks: Annotated[str | None, typer.Option(metavar="B", help="Tasks per round.")] = None,
    workers: Annotated[str | None, typer.Option(metavar="N", help="Workers, all like this machine.")] = None,
    sums: Annotated[str | None, typer.Option(metavar="fast|exact", help="Exact sums are twice as long.")] = None,
    loaders: Annotated[str | None, typer.Option(metavar="N", help="Processes for loading samples.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:<number>.")] = None,
    link: Annotated[
        str | None, typer.Option(metavar="RATE", help="What each worker's link carries: 1Gbit, 100Mbit/s, 12MB/s.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what was found there as JSON too.")
    ] = None,
) -> int:
    """Try a job out on this machine: what it needs, what travels, whether it gives the same bits, and what is wrong.

    It computes a few tasks, one update and one evaluation with the code of server and worker, and writes nothing. The
    settings are those that `paceline run` would have here, from flags, environment and paceline.toml. Every problem is
    one line (exit code 2; 78 where a setting is wrong); notes are no problems.
    """
    flags = {
        "job": job, "data": data, "micro_batch": micro_batch, "tasks": tasks, "workers": workers, "sums": sums,
        "loaders": loaders, "device": device,
    }  # fmt: skip
    settings = cast(RunCommand, build("run", gather("run", flags, os.environ, Path.cwd())))
    rate = None if link is None else parse_rate(link)
    if json_file is not None:
        check_writable(json_file)
    from paceline.cli.check_report import document, laid_out, lines
    from paceline.cli.check_run import examine

    found, findings = examine(settings)
    if found.kind:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for label, text in lines(settings, found, findings, rate):
            typer.echo(laid_out(label, text, columns))
    if json_file is not None:
        write_json(json_file, document(settings, found, findings, rate))
    for problem in findings.problems:
        sys.stderr.write(f"{problem.traceback_text}paceline: {problem.message}\n")
    return findings.problems[0].exit_code if findings.problems else 0
