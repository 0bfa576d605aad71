"""What the options of `start` make of an app."""

from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

from fleet_core.route import Forwarded
from fleet_core.spec import AppSpec, ListenMode, ReadyMethod, RestartMode, Runtime
from fleetctl.app_options import SpecOption
from fleetctl.errors import CliError, ExitCode
from fleetctl.main import cli, run
from fleetctl.target import Command
from fleetctl.wish import Wish


def wish(*arguments: str) -> Wish:
    command = cli.get_command(click.Context(cli), "start")
    assert command is not None
    context = command.make_context("start", ["./a.js", *arguments])
    options = [option for option in command.params if isinstance(option, SpecOption)]
    return Wish.of(options, context.params)


def spec(*arguments: str, node: bool = True) -> AppSpec:
    return wish(*arguments).spec("a", Command(("/bin/a",), node, "a"))


def test_without_options_an_app_has_the_defaults_of_the_spec() -> None:
    assert not wish()
    made = spec()
    assert made == AppSpec(name="a", argv=("/bin/a",), cwd=str(Path.cwd()), runtime=Runtime.NODE)


@pytest.mark.parametrize(
    ("arguments", "place", "value"),
    [
        (("--http", ":80"), "route.http", ":80"),
        (("--http", ":80", "--hostname", "a.test", "--hostname", "*.b.test"), "route.hosts", ("a.test", "*.b.test")),
        (("--http", ":80", "--path", "/api", "--path", "/v1"), "route.paths", ("/api", "/v1")),
        (("--http", ":80", "--path", "/api", "--strip-path"), "route.strip_path", True),
        (("--https", ":443"), "route.https", ":443"),
        (("--http", ":80", "--https", ":443", "--redirect-https"), "route.redirect_https", True),
        (("--http", ":80", "--forwarded", "append"), "route.forwarded", Forwarded.APPEND),
        (("--tcp", ":5432"), "route.tcp", ":5432"),
        (("--http", ":80", "--compression"), "route.compression", True),
        (("--http", ":80", "--rate-limit", "100/10s"), "route.rate_limit.requests", 100),
        (("--http", ":80", "--rate-limit", "100/10s"), "route.rate_limit.per_seconds", 10),
        (("--http", ":80", "--cache", "1m"), "route.cache.max_age_seconds", 60),
        (("--http", ":80", "--cache", "1m", "--cache-max-object", "2K"), "route.cache.max_object_bytes", 2048),
        (("--http", ":80", "--slow-start", "30s"), "route.slow_start_seconds", 30),
        (("--http", ":80", "--sticky"), "route.sticky", True),
        (("--http", ":80", "--sticky-drain", "5s"), "route.sticky_drain_seconds", 5),
        (("--http", ":80", "--max-connections", "8"), "route.max_connections", 8),
        (("--http", ":80", "--max-connections", "8", "--max-queue", "100"), "route.max_queue", 100),
        (("--user", "www"), "identity.user", "www"),
        (("--group", "www"), "identity.group", "www"),
        (("--umask", "027"), "identity.umask", "027"),
        (("--nice", "-5"), "identity.nice", -5),
        (("--ready", "notify"), "ready.method", ReadyMethod.NOTIFY),
        (("--ready", "auto"), "ready.method", None),
        (("--ready-path", "/up"), "ready.http_path", "/up"),
        (("--ready-command", "./check 'a b'"), "ready.command", ("./check", "a b")),
        (("--ready-command", "./check"), "ready.method", ReadyMethod.COMMAND),
        (("--start-timeout", "1m"), "ready.start_timeout_seconds", 60),
        (("--min-uptime", "500ms"), "ready.min_uptime_seconds", 0.5),
        (("--watchdog", "10"), "ready.watchdog_seconds", 10),
        (("--check-interval", "1s"), "ready.interval_seconds", 1),
        (("--check-timeout", "2s"), "ready.timeout_seconds", 2),
        (("--check-failures", "5"), "ready.unready_threshold", 5),
        (("--listen", "socket"), "listen_mode", ListenMode.SOCKET),
        (("--stop-signal", "int"), "stop.signal", "SIGINT"),
        (("--stop-signal", "SIGUSR2"), "stop.signal", "SIGUSR2"),
        (("--grace", "0"), "stop.grace_seconds", 0),
        (("--shutdown-message",), "stop.shutdown_message", True),
        (("--restart", "on-failure"), "restart.mode", RestartMode.ON_FAILURE),
        (("--stop-exit-code", "0", "--stop-exit-code", "78"), "restart.stop_exit_codes", (0, 78)),
        (("--max-restarts", "0"), "restart.max_restarts", 0),
        (("--restart-window", "1h"), "restart.window_seconds", 3600),
        (("--cron-restart", "0 3 * * *"), "cron_restart", "0 3 * * *"),
        (("--max-memory", "300M"), "limits.memory_restart_bytes", 300 * 1024**2),
        (("--memory-limit", "1.5G"), "limits.memory_max_bytes", 3 * 2**29),
        (("--cpu-limit", "0.5"), "limits.cpu_max_cores", 0.5),
        (("--pids-limit", "64"), "limits.pids_max", 64),
        (("--env-file", ".env", "--env-file", "b.env"), "env_files", (".env", "b.env")),
        (("-e", "A=1", "-e", "B=x=y"), "env", {"A": "1", "B": "x=y"}),
        (
            ("--worker-env", "1:A=1", "--worker-env", "2:A=", "--worker-env", "1:B=2"),
            "worker_env",
            {1: {"A": "1", "B": "2"}, 2: {"A": ""}},
        ),
        (("--log-timestamps",), "log.timestamps", True),
        (("--log-json",), "log.json_lines", True),
        (("--log-max-size", "64K"), "log.max_bytes", 65_536),
        (("--log-files", "0"), "log.max_files", 0),
        (("--log-max-age", "7d"), "log.max_age_seconds", 7 * 86_400),
        (("--log-compress",), "log.compress", True),
        (("--max-surge", "0"), "rollout.max_unavailable", 1),
    ],
)
def test_an_option_fills_its_field(arguments: tuple[str, ...], place: str, value: Any) -> None:
    assert wish(*arguments)
    found: Any = spec(*arguments)
    for part in place.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("text", "name", "soft", "hard"),
    [
        ("NOFILE=65536", "NOFILE", 65_536, 65_536),
        ("nofile=1024:4096", "NOFILE", 1024, 4096),
        ("RLIMIT_CORE=0:unlimited", "CORE", 0, -1),
        ("AS=infinity", "AS", -1, -1),
    ],
)
def test_one_value_sets_both_limits(text: str, name: str, soft: int, hard: int) -> None:
    limit = spec("--limit", text, "--limit", "NPROC=5").identity.resource_limits[name]
    assert (limit.soft, limit.hard) == (soft, hard)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--umask", "999"), "--umask"),
        (("--nice", "20"), "--nice"),
        (("--limit", "NOFILE"), "--limit"),
        (("--limit", "NOFILE=many"), "--limit"),
        (("--limit", "NOFILE=2:1"), "--limit"),
        (("--limit", "NOFILE=unlimited:1"), "--limit"),
        (("--limit", "WINGS=2"), "--limit"),
        (("--ready", "soon"), "--ready"),
        (("--ready", "http"), "--ready-path"),
        (("--ready", "command"), "--ready-command"),
        (("--ready", "tcp", "--ready-path", "/"), "--ready-path"),
        (("--ready", "tcp", "--ready-command", "true"), "--ready-command"),
        (("--ready-path", "/", "--ready-command", "true"), "--ready-path"),
        (("--ready-path", "up"), "--ready-path"),
        (("--ready-command", "'"), "--ready-command"),
        (("--ready-command", " "), "--ready-command"),
        (("--ready", "listen", "--listen", "none"), "--listen none"),
        (("--ready", "tcp", "--no-port"), "--listen none"),
        (("--ready-path", "/", "--no-port"), "--listen none"),
        (("--http", ":80", "--no-port"), "--listen none"),
        (("--https", ":443", "--no-port"), "--https needs something that listens"),
        (("--http", ":80", "--redirect-https"), "--redirect-https needs --http"),
        (("--http", ":80", "--https", ":80"), "--https: another of its addresses has port 80"),
        (("--hostname", "a.test"), "need --http"),
        (("--http", ":80", "--max-queue", "5"), "--max-queue: max_queue without max_connections"),
        (("--http", ":80", "--sticky", "--drain-timeout", "5s"), "route.sticky_drain must be shorter"),
        (("--path", "/api"), "need --http"),
        (("--http", ":80", "--strip-path"), "give it one"),
        (("--http", ":80", "--hostname", "A test"), "--hostname"),
        (("--port", "80", "--no-port"), "--port"),
        (("--listen", "socket", "--no-port"), "--no-port"),
        (("--http", "here"), "--http"),
        (("--start-timeout", "0"), "--start-timeout"),
        (("--start-timeout", "2d"), "--start-timeout"),
        (("--watchdog", "often"), "--watchdog"),
        (("--stop-signal", "SIGNOPE"), "--stop-signal"),
        (("--grace", "-1"), "--grace"),
        (("--restart", "maybe"), "--restart"),
        (("--stop-exit-code", "256"), "--stop-exit-code"),
        (("--max-restarts", "-1"), "--max-restarts"),
        (("--cron-restart", "at noon"), "--cron-restart"),
        (("--max-memory", "lots"), "--max-memory"),
        (("--memory-limit", "9999999999T"), "--memory-limit"),
        (("--cpu-limit", "0"), "--cpu-limit"),
        (("--cpu-limit", "nan"), "--cpu-limit"),
        (("--pids-limit", "0"), "--pids-limit"),
        (("--worker-env", "0:A=1"), "--worker-env"),
        (("--worker-env", "A=1"), "--worker-env"),
        (("-e", "A"), "--env"),
        (("--log-max-size", "1"), "--log-max-size"),
        (("--log-files", "many"), "--log-files"),
        (("--log-max-age", "30000d"), "--log-max-age"),
        (("-n", "My App"), "--name"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_option(
    script: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], option: str
) -> None:
    assert run(["start", str(script), *arguments]) == ExitCode.USAGE
    error = capsys.readouterr().err.splitlines()
    assert option in error[0]
    assert len(error) == 1 or (len(error) == 2 and error[1].startswith("  `fleetctl start --help`"))


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script, and no fleet: what is wrong is found without one."""
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "none.toml"))
    path = tmp_path / "job"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_what_is_no_number_is_called_none(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["start", str(script), "--nice", "x"]) == ExitCode.USAGE
    assert "'--nice': 'x' is not a valid whole number" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [("--ready", "message"), ("--shutdown-message",)])
def test_what_needs_nodes_channel_is_for_node_alone(argument: tuple[str, ...]) -> None:
    assert spec(*argument, node=True)
    with pytest.raises(CliError, match="is for Node programs"):
        spec(*argument, node=False)


def test_every_field_of_a_spec_is_filled_by_one_option_at_most() -> None:
    command = cli.get_command(click.Context(cli), "start")
    assert command is not None
    fields = [option.field for option in command.params if isinstance(option, SpecOption)]
    assert len(fields) == len(set(fields))
    for field in fields:
        known: Any = AppSpec
        for part in field:
            known = get_type_hints(known)[part]


def test_an_error_page_is_read_from_its_file(tmp_path: Path) -> None:
    page = tmp_path / "busy.html"
    page.write_text("<h1>zurück</h1>")
    assert spec("--http", ":80", "--error-page", f"503={page}").route.error_pages == {503: "<h1>zurück</h1>"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("busy.html", "'busy.html' is not STATUS=FILE"),
        ("503=/nowhere/busy.html", "/nowhere/busy.html: No such file or directory"),
    ],
)
def test_an_error_page_that_cannot_be_read_is_told(written: str, words: str) -> None:
    with pytest.raises(click.BadParameter, match=words):
        spec("--http", ":80", "--error-page", written)


@pytest.mark.parametrize("rate", ["100", "0/1s", "x/1s", "100/soon"])
def test_a_rate_that_is_none_is_told(rate: str) -> None:
    with pytest.raises(click.BadParameter):
        spec("--http", ":80", "--rate-limit", rate)


def test_tcp_and_http_exclude_each_other() -> None:
    with pytest.raises(CliError, match="--tcp does not go with --http and --https"):
        spec("--http", ":80", "--tcp", ":81")
