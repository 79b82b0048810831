"""Flag goes before environment, environment before paceline.toml, paceline.toml before default; and each is shown."""

from pathlib import Path

import pytest

from paceline.cli.commands import RunCommand, WorkerCommand, parse_means
from paceline.cli.configuration import build, gather
from paceline.errors import PacelineError, SettingsError, UsageError


def settings_of(
    folder: Path,
    command: str = "run",
    flags: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    toml: str = "",
) -> RunCommand:
    (folder / "paceline.toml").write_text(toml)
    given = gather(command, {"job": "job.py:Job", **(flags or {})}, environ or {}, folder)
    settings = build(command, given)
    assert isinstance(settings, RunCommand)
    return settings


def test_each_source_goes_before_the_next(tmp_path: Path) -> None:
    flags: dict[str, object] = {"tasks": "4"}
    environ = {"PACELINE_TASKS": "5", "PACELINE_SEED": "6"}
    toml = "tasks = 7\nseed = 8\nrounds = 9\nthreads = 3\n[run]\nrounds = 10\n"
    settings = settings_of(tmp_path, flags=flags, environ=environ, toml=toml)
    assert (settings.tasks, settings.seed, settings.rounds, settings.threads) == (4, 6, 10, 3)
    assert settings.micro_batch == RunCommand.model_fields["micro_batch"].default


def test_a_table_of_another_command_is_not_read(tmp_path: Path) -> None:
    assert settings_of(tmp_path, toml="[server]\nrounds = 10\n").rounds is None


def test_a_flat_key_of_another_command_is_left_to_it(tmp_path: Path) -> None:
    assert settings_of(tmp_path, toml="bind = '127.0.0.1:7071'\n").bind == "127.0.0.1:7070"


def test_keys_may_have_underscores_and_values_their_own_types(tmp_path: Path) -> None:
    toml = "micro_batch = 4\nworkers = 2\npace = [1, 2.5]\nreflection = true\nconstants = 1.5\n[run.means]\nw1 = 0.5\n"
    settings = settings_of(tmp_path, toml=toml)
    assert (settings.micro_batch, settings.pace, settings.reflection) == (4, (1.0, 2.5), True)
    assert (settings.constants, settings.means_s) == ("1.5", {"w1": 0.5})


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert settings_of(tmp_path, environ={"PACELINE_RUN_DIR": ""}).run_dir is None


def test_a_switch_can_be_turned_off_by_a_flag(tmp_path: Path) -> None:
    assert settings_of(tmp_path, environ={"PACELINE_REFLECTION": "1"}).reflection
    assert not settings_of(tmp_path, flags={"reflection": False}, environ={"PACELINE_REFLECTION": "1"}).reflection


def test_job_and_server_may_stand_in_the_environment(tmp_path: Path) -> None:
    environ = {"PACELINE_SERVER": "there:7070", "PACELINE_JOB": "job.py:Job"}
    settings = build("worker", gather("worker", {}, environ, tmp_path))
    assert isinstance(settings, WorkerCommand)
    assert (settings.server, settings.job) == ("there:7070", "job.py:Job")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("roundz = 3", ("paceline.toml", "'roundz'", "did you mean rounds?")),
        ("[run]\nmicro_bach = 3", ("paceline.toml [run]", "'micro_bach'", "did you mean micro-batch?")),
        ("[serve]\nrounds = 3", ("'serve'", "did you mean server?")),
        ("[worker]\nrounds = 3", ("paceline.toml [worker]", "'rounds'")),
        ("run = 3", ("run in paceline.toml is 3", "[run]")),
        ("tasks = \nseed = 1", ("paceline.toml cannot be read", "line 1")),
        ("tasks = 0", ("tasks in paceline.toml is 0", "at least 1")),
        ("[run]\nsums = 'exac'", ("sums in paceline.toml [run] is 'exac'", "fast, exact", "did you mean exact?")),
        ("seed = 'x'", ("seed in paceline.toml is 'x'", "whole number")),
        ("insecure = 'perhaps'\n[run]\nreflection = 'perhaps'", ("reflection in paceline.toml", "true or false")),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, toml: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as refusal:
        settings_of(tmp_path, toml=toml)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("flags", "environ", "kind"),
    [({"tasks": "0"}, {}, UsageError), ({}, {"PACELINE_TASKS": "0"}, SettingsError)],
)
def test_blame_goes_where_the_value_stood(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], kind: type[PacelineError]
) -> None:
    with pytest.raises(kind) as refusal:
        settings_of(tmp_path, flags=flags, environ=environ)
    assert str(refusal.value).startswith("--tasks is '0'" if flags else "PACELINE_TASKS is '0'")


def test_means_stand_by_name_or_in_the_order_of_the_workers() -> None:
    assert parse_means("w1=0.01, w3=0.02") == {"w1": 0.01, "w3": 0.02}
    assert parse_means("0.01,0.02") == parse_means([0.01, 0.02]) == {"w1": 0.01, "w2": 0.02}
    assert parse_means({"a": 1.0}) == {"a": 1.0}


def test_workers_of_a_run_have_names_paces_and_delays_of_their_own(tmp_path: Path) -> None:
    flags: dict[str, object] = {"workers": "3", "pace": "1,2,4", "delay": "const:0.01", "delay_seed": "5", "data": "d"}
    workers = settings_of(tmp_path, flags=flags).worker_settings("127.0.0.1:7070")
    assert [worker.name for worker in workers] == ["w1", "w2", "w3"]
    assert [worker.pace for worker in workers] == [1.0, 2.0, 4.0]
    assert {worker.delay for worker in workers} == {"const:0.01"}
    assert {(worker.delay_seed, worker.data) for worker in workers} == {(5, Path("d"))}


def test_the_servers_part_of_a_run_is_passed_on_whole(tmp_path: Path) -> None:
    run = settings_of(tmp_path, flags={"tasks": "5", "sums": "exact", "policy": "fixed", "means_s": "0.1,0.2"})
    server = run.run_settings(bind="127.0.0.1:0", min_workers=2)
    assert (server.tasks, server.sums, server.means_s) == (5, "exact", {"w1": 0.1, "w2": 0.2})
    assert (server.bind, server.min_workers, server.job) == ("127.0.0.1:0", 2, "job.py:Job")
