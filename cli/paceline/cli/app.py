"""The command line of `paceline`; the flags of run, server and worker are generated from the table of options."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from paceline.cli.admin import register_admin, register_checkpoint_now
from paceline.cli.asking import TlsDir, TokenFile, access_of
from paceline.cli.certs import certs
from paceline.cli.check_command import register_check
from paceline.cli.checkpoint_commands import group as checkpoint_group
from paceline.cli.commands import RayCommand, RunCommand, ServerCommand, WorkerCommand
from paceline.cli.configuration import build, default_of, describe, gather
from paceline.cli.doctor import register_doctor
from paceline.cli.exit_codes import INTERRUPTED
from paceline.cli.export import register_export
from paceline.cli.ignored import given_in_vain
from paceline.cli.init import register_init
from paceline.cli.options import Option, options_of
from paceline.cli.plan import register_plan
from paceline.cli.report import register_report
from paceline.cli.simulate import EXAMPLES as SIMULATE_EXAMPLES
from paceline.cli.simulate import simulate
from paceline.cli.tokens import token
from paceline.errors import JobImportError, PacelineError
from paceline.version import __version__

app = typer.Typer(
    name="paceline",
    help="Train one PyTorch model on machines that are not alike, and pay only for the work that is used.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(certs, name="certs")
app.add_typer(token, name="token")

SOURCES = (
    "Every setting can also stand in the environment (--micro-batch: PACELINE_MICRO_BATCH) or in paceline.toml"
    " (micro-batch, in the table of its command or above all tables). Flags go first, then the environment, then the"
    " file; --print-config shows what came from where."
)

EXAMPLES = {
    "run": (
        "paceline run my_job.py:MyJob --workers 4 --rounds 200 --seed 1 --sums exact --json out.json",
        "paceline run my_job.py:MyJob --workers 4 --pace 1,2,4,8 --policy greedy --until 'accuracy>=0.97'",
    ),
    "server": (
        "paceline server my_job.py:MyJob --bind 0.0.0.0:7070 --tls-dir tls --tokens tokens.json --run-dir runs/a",
        "paceline server my_job.py:MyJob --rounds 200 --metrics-port 9464",
    ),
    "ray": (
        "paceline ray my_job.py:MyJob --workers 8 --rounds 200",
        "paceline ray my_job.py:MyJob --workers 4 --gpus-per-worker 1 --address 10.0.0.5:6379 --run-dir runs/a",
    ),
    "worker": (
        "paceline worker main-node:7070 my_job.py:MyJob --data /data/pictures",
        "paceline worker main-node:7070 my_job.py:MyJob --name lab-3 --tls-dir tls --token-file lab-3.token",
    ),
}


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code; errors become one line on standard error.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    try:
        code = app(arguments, standalone_mode=False)
    except JobImportError as error:
        sys.stderr.write(error.traceback_text)
        return _complain(str(error), error.exit_code)
    except PacelineError as error:
        if error.exit_code == PacelineError.exit_code:
            return _confess(error)
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        # What typer (or the click under it) says about a command line it cannot read.
        wording = getattr(error, "format_message", None)
        if wording is None:
            return _confess(error)
        return _complain(" ".join(str(wording()).split()), getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"paceline: {message}\n")
    return code


def _confess(error: Exception) -> int:
    traceback.print_exception(error)
    return _complain(f"this is a bug in paceline {__version__}: please report it with the lines above", 70)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"paceline {__version__}")
        raise typer.Exit


def _parameter(option: Option, default: str) -> inspect.Parameter:
    """Make a typer parameter. All values stay text: one place, the model, says what is wrong with them.

    Args:
        default: as the help text shows it; empty: not at all.
    """
    annotation: Any
    text = f"{option.help} [dim](default: {default})[/dim]" if default else option.help
    if option.argument:
        annotation = Annotated[str | None, typer.Argument(metavar=option.shows, help=text, show_default=False)]
    elif option.shows:
        known: Any = typer.Option(option.flag, metavar=option.shows, help=text, rich_help_panel=option.panel)
        annotation = Annotated[str | None, known]
    else:
        switch = typer.Option(f"{option.flag}/--no-{option.name}", help=text, rich_help_panel=option.panel)
        annotation = Annotated[bool | None, switch]
    return inspect.Parameter(option.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


PRINT_CONFIG = inspect.Parameter(
    "print_config",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--print-config", help="Print every setting and where it came from, and exit.")
    ],
)


def _command(name: str, title: str, start: Callable[[Any], int]) -> None:
    """Register a command: its settings are read, checked, and shown or handed to `start`, which gives the exit code."""

    def body(print_config: bool, **flags: object) -> int:
        given = gather(name, flags, os.environ, Path.cwd())
        settings = build(name, given)
        if print_config:
            typer.echo(describe(name, given, settings))
            return 0
        for line in given_in_vain(name, given, settings):
            sys.stderr.write(f"paceline: {line}\n")
        return start(settings)

    parameters = [*(_parameter(option, default_of(name, option)) for option in options_of(name)), PRINT_CONFIG]
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    examples = "\n\n".join(["Examples:", *(f"  [bold]{line}[/bold]" for line in EXAMPLES[name]), SOURCES])
    app.command(name, help=title, epilog=examples)(body)


def _start_run(settings: RunCommand) -> int:
    from paceline.cli.local_run import run_and_report

    return run_and_report(settings)


def _start_ray(settings: RayCommand) -> int:
    from paceline.cli.ray_cluster import run_on_ray

    return run_on_ray(settings)


def _start_server(settings: ServerCommand) -> int:
    from paceline.cli.remote import serve

    return serve(settings)


def _start_worker(settings: WorkerCommand) -> int:
    from paceline.cli.remote import work

    return work(settings)


_command("run", "Train on this machine: one server and N worker processes over real gRPC.", _start_run)
_command("server", "Start the main node and wait for workers.", _start_server)
_command("ray", "Train on a Ray cluster: a server here, and workers as actors on its nodes.", _start_ray)
_command("worker", "Join a server and compute tasks until the run is over. SIGTERM drains: finish, push, leave.",
         _start_worker)  # fmt: skip


@app.command("status", epilog="Examples:\n\n  [bold]paceline status 127.0.0.1:7070[/bold]\n\n"
             "  [bold]paceline status main-node:7070 --json[/bold]")  # fmt: skip
def _status(
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the server listens.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Wait so long for it.")] = 5.0,
    tls_dir: TlsDir = None,
    token_file: TokenFile = None,
) -> int:
    """Show how a run goes: round, loss, what was learned about each worker, and why the last decision was made."""
    from paceline.cli.remote import show_status

    return show_status(server, as_json, timeout_s, access_of(tls_dir, token_file))


@app.command("replay", epilog="Examples:\n\n  [bold]paceline replay runs/a[/bold]\n\n"
             "  [bold]paceline replay runs/a my_job.py:MyJob --data /data/pictures --json out.json[/bold]")  # fmt: skip
def _replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.", show_default=False)],
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Its job. [dim](default: as in the run)[/dim]")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the data. [dim](default: as in the run)[/dim]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Computes the tasks. [dim](default: as in the run)[/dim]")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the verdict there as JSON too.")
    ] = None,
) -> int:
    """Make the parameters of a run again from its ledger, and say whether they are the same bits.

    One process computes every task that was used, at the version that it was computed at. If something differs (exit
    code 1), the first round that does is named. Nothing is written into the directory of the run.
    """
    from paceline.cli.replay import ReplayCommand, replay_and_report

    return replay_and_report(ReplayCommand(run=run, job=job, data=data, device=device, json_file=json_file))


app.command("simulate", epilog="\n\n".join(["Examples:", *(f"  [bold]{line}[/bold]" for line in SIMULATE_EXAMPLES)]))(
    simulate
)
register_init(app)
register_check(app)
register_plan(app)
register_doctor(app)
register_report(app)
register_export(app)
register_checkpoint_now(checkpoint_group)
app.add_typer(checkpoint_group)
register_admin(app)
