"""PM2's ecosystem files: each attribute is kept, which is seen in the spec, or told in one line."""
# ruff: noqa: E501 (tables)

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleet_core.spec import AppSpec
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.tree import FleetFileError
from fleetctl.pm2 import values
from fleetctl.pm2.attributes import ATTRIBUTES, spellings
from fleetctl.pm2.convert import Converted, convert
from fleetctl.pm2.ecosystem import from_plain, is_ecosystem, read_json, run_script
from scripts.fleet_file_docs import DOCS

SCHEMA = """
append_env_to_name args automation autorestart autostart cron_restart cwd deep_monitoring disable_logs
disable_source_map_support disable_trace env env_* error_file event_loop_inspector exec_interpreter exec_mode
execute_command exp_backoff_restart_delay filter_env force gid ignore_watch increment_var install_url
instance_var instances io kill_retry_time kill_timeout listen_timeout log_date_format log_file log_type
max_memory_restart max_restarts merge_logs min_uptime name name_prefix namespace node_args out_file pid_file
pmx port post_update restart_delay script shutdown_with_message source_map_support stop_exit_codes time trace
treekill uid username v8 vizion wait_ready watch watch_delay watch_options windowsHide write
"""
"""The names in lib/API/schema.json of PM2 7.0.4, `^env_\\S*$` as env_*."""


def converted(given: dict[str, Any], folder: Path = Path("/srv"), env_name: str = "", **top: Any) -> Converted:
    app = {"script": "app.js", "name": "shop", **given}
    return convert(from_plain({"apps": [app], **top}, folder / "ecosystem.config.js"), env_name)


def spec(given: dict[str, Any], folder: Path = Path("/srv"), env_name: str = "") -> AppSpec:
    """Of what is kept without a word."""
    result = converted(given, folder, env_name)
    assert result.warnings == ()
    return result.apps[0].spec


def field(app: AppSpec, path: str) -> Any:
    value: Any = app
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


# What is kept: attribute → what a file says, the field of the spec where it is seen, and what stands there.
KEPT: dict[str, list[tuple[dict[str, Any], str, Any]]] = {
    "script": [
        ({"script": "./bin/app.js"}, "argv", ("node", "/srv/bin/app.js")),
        ({"script": "job.py"}, "argv", ("python3", "/srv/job.py")),
        ({"script": "job.py"}, "env.PYTHONUNBUFFERED", "1"),
        ({"script": "npm", "args": "start"}, "argv", ("npm", "start")),
        ({"script": "npm", "args": "start"}, "runtime", "node"),
        ({"script": "echo a; sleep 9"}, "argv", ("bash", "-c", "echo a; sleep 9")),
        ({"script": None, "cmd": "a.js"}, "argv", ("node", "/srv/a.js")),
    ],
    "name": [({}, "name", "shop")],
    "filter_env": [({"filter_env": ["SECRET"]}, "env", {})],
    "cwd": [
        ({"cwd": "web"}, "cwd", "/srv/web"),
        ({"cwd": "web"}, "argv", ("node", "/srv/web/app.js")),
        ({}, "cwd", "/srv"),
    ],
    "args": [
        ({"args": ["--a", 1]}, "argv", ("node", "/srv/app.js", "--a", "1")),
        ({"args": "--a 'b c' --d=\"e f\""}, "argv", ("node", "/srv/app.js", "--a", "b c", '--d="e f"')),
    ],
    "exec_interpreter": [
        ({"interpreter": "/opt/python"}, "argv", ("/opt/python", "/srv/app.js")),
        ({"interpreter": "none", "script": "./run"}, "argv", ("/srv/run",)),
    ],
    "node_args": [({"node_args": "--max-old-space-size=512"}, "argv", ("node", "--max-old-space-size=512", "/srv/app.js"))],
    "log_type": [({"log_type": "json"}, "log.json_lines", True)],
    "time": [({"time": True}, "log.timestamps", True)],
    "env": [
        ({"env": {"A": 1, "B": True, "C": {"d": 1}, "D": 1.5, "E": None}}, "env", {"A": "1", "B": "true", "C": '{"d":1}', "D": "1.5", "E": "null"}),
        ({"env": {"PORT": 3000}}, "route.http", ":3000"),
        ({"env": {"PORT": 3000}}, "listen_mode", "port"),
    ],
    "max_memory_restart": [
        ({"max_memory_restart": "300M"}, "limits.memory_restart_bytes", 300 * 1024**2),
        ({"max_memory_restart": 1000}, "limits.memory_restart_bytes", 1000),
    ],
    "restart_delay": [({"restart_delay": 4000}, "restart.backoff_initial_seconds", 4), ({"restart_delay": 4000}, "restart.backoff_max_seconds", 4)],
    "exp_backoff_restart_delay": [
        ({"exp_backoff_restart_delay": 100}, "restart.backoff_initial_seconds", 0.1),
        ({"exp_backoff_restart_delay": 100}, "restart.backoff_max_seconds", 15),
        ({"exp_backoff_restart_delay": 100}, "restart.stable_seconds", 30),
    ],
    "source_map_support": [({"source_map_support": True}, "argv", ("node", "--enable-source-maps", "/srv/app.js"))],
    "disable_source_map_support": [({"disable_source_map_support": True}, "argv", ("node", "/srv/app.js"))],
    "wait_ready": [({"wait_ready": True}, "ready.method", "message")],
    "kill_timeout": [({"kill_timeout": 1600}, "stop.grace_seconds", 1.6), ({"kill_timeout": 0}, "stop.grace_seconds", 10), ({}, "stop.signal", "SIGINT")],
    "shutdown_with_message": [({"shutdown_with_message": True}, "stop.shutdown_message", True)],
    "listen_timeout": [({"listen_timeout": 8000}, "ready.start_timeout_seconds", 8)],
    "cron_restart": [
        ({"cron_restart": "0 3 * * *"}, "cron_restart", "0 3 * * *"),
        ({"cron": 0}, "cron_restart", ""),
        ({"cron": "@daily"}, "cron_restart", "0 0 * * *"),
        ({"cron": "0 30 2 * * 1"}, "cron_restart", "30 2 * * 1"),
    ],
    "autorestart": [({"autorestart": False}, "restart.mode", "never")],
    "stop_exit_codes": [({"stop_exit_codes": [0, 3]}, "restart.stop_exit_codes", (0, 3)), ({"stop_exit_codes": 4}, "restart.stop_exit_codes", (4,))],
    "min_uptime": [({"min_uptime": "5s"}, "restart.stable_seconds", 5), ({"min_uptime": 2000}, "restart.stable_seconds", 2)],
    "max_restarts": [
        ({"max_restarts": 5}, "restart.max_restarts", 4),
        ({"max_restarts": 5}, "restart.window_seconds", 300),
        ({"max_restarts": 100, "min_uptime": "10s"}, "restart.window_seconds", 1000),
    ],
    "execute_command": [({"execute_command": True, "instances": 2}, "listen_mode", "none")],
    "exec_mode": [
        ({"exec_mode": "cluster", "port": 80}, "listen_mode", "port"),
        ({"instances": 2, "port": 80}, "rollout.max_surge", 1),
        ({"exec_mode": "fork_mode", "instances": 2}, "listen_mode", "none"),
        ({"script": "job.py", "instances": 2}, "listen_mode", "none"),
        ({"exec_mode": "fork"}, "rollout.max_surge", 0),
    ],
    "disable_trace": [({"disable_trace": True}, "argv", ("node", "/srv/app.js"))],
    "increment_var": [
        ({"increment_var": "METRICS", "env": {"METRICS": 9000}}, "counters", {"NODE_APP_INSTANCE": 0, "METRICS": 9000}),
        ({"increment_var": "N"}, "counters.N", 0),
    ],
    "instance_var": [({"instance_var": "INSTANCE"}, "counters", {"INSTANCE": 0}), ({}, "counters", {"NODE_APP_INSTANCE": 0})],
    "port": [({"port": 3000}, "route.http", ":3000")],
    "uid": [({"uid": 1000}, "identity.user", "1000"), ({"user": "www"}, "identity.user", "www")],
    "gid": [({"gid": "www"}, "identity.group", "www")],
}  # fmt: skip

# What is not kept: a value that asks for it.
LOST: dict[str, Any] = {
    "name_prefix": "x", "namespace": "web", "install_url": "x", "out_file": "out.log", "error_file": "/dev/null",
    "log_file": "all.log", "disable_logs": True, "log_date_format": "YYYY", "pid_file": "a.pid", "merge_logs": True,
    "vizion": True, "autostart": False, "watch_delay": 1000, "watch": ["src"], "ignore_watch": ["node_modules"],
    "watch_options": {"followSymlinks": False}, "force": True, "post_update": ["npm i"], "trace": True, "v8": True,
    "event_loop_inspector": True, "deep_monitoring": True, "pmx": True, "automation": True, "treekill": False,
    "username": "ada", "windowsHide": True, "kill_retry_time": 100, "write": True, "io": {"apm": {}},
}  # fmt: skip
# Kept, but in their own tests below.
ELSEWHERE = {"env_*", "instances", "append_env_to_name"}


def test_the_table_has_every_attribute_of_pm2_and_each_is_tested() -> None:
    assert sorted(ATTRIBUTES) == sorted(SCHEMA.split())
    assert {name for name, attribute in ATTRIBUTES.items() if attribute.kept} == set(KEPT) | ELSEWHERE
    assert {name for name, attribute in ATTRIBUTES.items() if not attribute.kept} == set(LOST)


def test_the_page_shows_the_table() -> None:
    rows = re.findall(r"^\| `([^`]+)`[^|]* \| (warned: )?", (DOCS / "moving" / "pm2.md").read_text(), re.MULTILINE)
    shown = {name: not warned for name, warned in rows if name in ATTRIBUTES}
    assert shown == {name: attribute.kept for name, attribute in ATTRIBUTES.items()}


@pytest.mark.parametrize(
    ("given", "path", "value"), [scene for scenes in KEPT.values() for scene in scenes], ids=lambda part: str(part)[:40]
)
def test_what_is_kept_is_seen_in_the_spec_and_nothing_is_said(given: dict[str, Any], path: str, value: Any) -> None:
    assert field(spec(given), path) == value


@pytest.mark.parametrize(("name", "value"), LOST.items(), ids=LOST)
def test_what_is_not_kept_is_told_in_exactly_one_line(name: str, value: Any) -> None:
    for spelling in {name, *ATTRIBUTES[name].aliases}:
        warnings = converted({spelling: value}).warnings
        assert len(warnings) == 1
        assert warnings[0].startswith(f"shop: {spelling}: ")
        assert "\n" not in warnings[0]


@pytest.mark.parametrize("name", [name for name in LOST if ATTRIBUTES[name].quiet])
def test_what_asks_for_nothing_is_not_told(name: str) -> None:
    for value in ATTRIBUTES[name].quiet:
        assert converted({name: value}).warnings == ()


def test_camel_case_is_taken_as_pm2_takes_it() -> None:
    assert spec({"maxMemoryRestart": "1G", "killTimeout": 2000}).limits.memory_restart_bytes == 1024**3
    assert converted({"ignoreWatch": ["x"]}).warnings[0].startswith("shop: ignoreWatch: ")
    assert spellings()["combineLogs"] == "merge_logs"


def test_what_pm2_does_not_know_either_is_told_with_the_nearest() -> None:
    assert converted({"instnaces": 4}).warnings == (
        "shop: instnaces: PM2 has no such attribute: did you mean instances?",
    )


@pytest.mark.parametrize(
    ("instances", "size"),
    [
        (4, Wanted(4)),
        ("4", Wanted(4)),
        ("max", Wanted(PerCore())),
        (0, Wanted(PerCore())),
        (-1, Wanted(PerCore(1))),
        (None, Wanted(1)),
    ],
)
def test_instances_are_the_size(instances: Any, size: Wanted) -> None:
    assert converted({"instances": instances}).apps[0].size == size


def test_the_named_environment_wins_over_env_and_both_over_deploys() -> None:
    given = {"env": {"A": "env", "B": "env"}, "env_production": {"A": "production"}}
    deploy = {"production": {"env": {"B": "deploy", "C": "deploy"}}}
    result = converted(given, env_name="production", deploy=deploy)
    assert result.apps[0].spec.env == {"A": "production", "B": "env", "C": "deploy"}
    assert result.warnings == ("deploy: pm2 deploy's part is not kept",)
    assert spec(given).env == {"A": "env", "B": "env"}
    assert converted(given, env_name="staging").warnings == ("shop: --env: it has no env_staging: env alone counts",)
    assert converted({"append_env_to_name": True, **given}, env_name="production").apps[0].name == "shop-production"


def test_a_null_takes_a_variable_away_but_in_env_itself() -> None:
    """As PM2 7 starts it: it makes texts of the objects in `env` alone, and passes on no null (ForkMode.js)."""
    given = {"env": {"A": "env", "B": None}, "env_production": {"A": None, "C": None}}
    assert spec(given, env_name="production").env == {"B": "null"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (-0.0, "0"), (1.50, "1.5"), (1e5, "100000"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1.5e300, "1.5e+300"), (1e-6, "0.000001"), (1.5e-7, "1.5e-7"), (10**25, "1e+25"), (12345678901234567890, "12345678901234567000"),
        (True, "true"), (None, "null"), (10**400, "Infinity"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_javascript_writes_it(value: Any, text: str) -> None:
    """What `String(value)` gave in Node 20."""
    assert values.text(value) == text


def test_typescript_is_run_by_bun_or_where_there_is_none_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/bun")
    assert spec({"script": "app.ts"}).argv == ("bun", "/srv/app.ts")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert spec({"script": "app.ts"}).argv == ("node", "/srv/app.ts")


def test_what_is_told_is_one_short_line_whatever_the_file_says() -> None:
    (warning,) = converted({"watch\n\x1b[2J\ud800" + "x" * 100_000: True}).warnings
    assert warning.isprintable()
    assert len(warning) < 1000
    with pytest.raises(FleetFileError) as caught:
        converted({"autorestart": "x\u202e" * 100_000})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert str(caught.value).endswith("is not true or false")


def test_a_cluster_without_a_port_is_told_for_clients_could_not_reach_it() -> None:
    (warning,) = converted({"exec_mode": "cluster", "instances": 2}).warnings
    assert warning.startswith("shop: exec_mode: a cluster, but no port says where clients reach it")
    (warning,) = converted({"instances": 2}).warnings
    assert warning.startswith("shop: instances: a cluster, but no port says where clients reach it")


def test_what_is_kept_in_part_is_told() -> None:
    assert len(converted({"interpreter": "node@18"}).warnings) == 1
    assert converted({"interpreter": "node@18"}).apps[0].spec.argv[0] == "node"
    assert len(converted({"cron_restart": "*/5 0 3 * * *"}).warnings) == 1
    assert len(converted({"wait_ready": True, "script": "a.py"}).warnings) == 1
    assert converted({"log_date_format": "YYYY"}).apps[0].spec.log.timestamps
    assert converted({"name": "My Shop"}).warnings == ("my-shop: name: 'My Shop' becomes my-shop",)


def test_an_app_that_shall_not_start_is_left_out() -> None:
    result = converted({"autostart": False})
    assert result.apps == ()
    assert "the app is left out" in result.warnings[0]


def test_a_script_without_a_suffix_is_run_as_pm2_would_or_as_it_says_itself(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("console.log(1)")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "folder").mkdir()
    assert spec({"script": "./plain"}, tmp_path).argv == ("node", f"{tmp_path}/plain")
    assert spec({"script": "./tool"}, tmp_path).argv == (f"{tmp_path}/tool",)
    assert spec({"script": "./binary"}, tmp_path).argv == (f"{tmp_path}/binary",)
    assert spec({"script": "./folder/"}, tmp_path).argv == ("node", f"{tmp_path}/folder")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"script": ""}, "apps[0].script: what shall run?"),
        ({"max_memory_restart": "lots"}, "apps[0].max_memory_restart: 'lots' is not a size"),
        ({"min_uptime": "5w"}, "apps[0].min_uptime: '5w' is not a time"),
        ({"killTimeout": "x"}, "apps[0].killTimeout: 'x' is not a number"),
        ({"instances": "many"}, "apps[0].instances: 'many' is not a number"),
        ({"autorestart": "no"}, "apps[0].autorestart: 'no' is not true or false"),
        ({"port": 99_999}, "apps[0].port: '99999' is not a port"),
        ({"env": "A=1"}, "apps[0].env: write an object"),
        ({"exec_mode": "threads"}, "apps[0].exec_mode: 'threads' is not cluster or fork"),
        ({"cron_restart": "never"}, "apps[0].cron_restart: cron time 'never' is not valid"),
        ({"cron_restart": True}, "apps[0].cron_restart: true is not a text"),
        ({"interpreter": ["node"]}, 'apps[0].interpreter: ["node"] is not a text'),
        ({"cwd": {}}, "apps[0].cwd: {} is not a text"),
        ({"args": {"a": 1}}, 'apps[0].args: {"a":1} is not a text'),
        ({"source_map_support": "yes"}, "apps[0].source_map_support: 'yes' is not true or false"),
        ({"uid": []}, "apps[0].uid: [] is not a text"),
        ({"kill_timeout": 10**400}, "apps[0].kill_timeout: 1000"),
        ({"instances": 10**400}, "apps[0].instances: 1000"),
        ({"script": "x" * 200_000}, "apps[0].argv: word 1 of the command has"),
        ({"name": "!!"}, "apps[0].name: no name can be made from '!!'"),
    ],
)
def test_a_bad_value_is_refused_in_a_line(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        converted(given)
    assert str(caught.value).startswith(f"/srv/ecosystem.config.js: {complaint}")


def test_two_apps_may_not_have_one_name() -> None:
    apps = [{"script": "a.js", "name": "a"}, {"script": "b.js", "name": "A"}]
    with pytest.raises(FleetFileError, match=r"there are two apps a"):
        convert(from_plain(apps, Path("/srv/e.json")))


def test_only_the_named_apps_are_taken_and_only_theirs_is_told() -> None:
    apps = [{"script": "a.js", "watch": True}, {"script": "b.js", "name": "b", "watch": True}, {"script": ""}]
    ecosystem = from_plain({"apps": apps[:2]}, Path("/srv/e.json"))
    result = convert(ecosystem, only=("b",))
    assert [app.name for app in result.apps] == ["b"]
    assert len(result.warnings) == 1
    with pytest.raises(FleetFileError, match="no app in it is named c"):
        convert(ecosystem, only=("c",))


def test_json_is_read_as_pm2_reads_it() -> None:
    text = """// a comment
{ apps: [ { name: 'a', /* another */ "script":"a.js", env: {"URL": "http://x//y", T: "a:b"},
\t\tinstances: 2, watch: false, }, ],
}"""
    assert read_json(text, "e.json") == {
        "apps": [
            {"name": "a", "script": "a.js", "env": {"URL": "http://x//y", "T": "a:b"}, "instances": 2, "watch": False}
        ]
    }
    with pytest.raises(FleetFileError, match=r"e\.json:2:"):
        read_json("{ apps: [\n{ name: 'a' script: 3 } ]}", "e.json")


@pytest.mark.parametrize("value", [[{"script": "a"}], {"apps": [{}]}, {"script": "a"}, {"apps": {"script": "a"}}])
def test_what_pm2_would_take_is_known_from_a_fleet_file(value: Any) -> None:
    assert is_ecosystem(value)
    assert not is_ecosystem({"apps": {"shop": {"script": "a"}}})


_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not on PATH")


@_node
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ecosystem.config.js", "console.log('noise'); module.exports = {apps: [{script: process.cwd() + '/a.js'}]}"),
        ("ecosystem.config.cjs", "module.exports = [{script: __dirname + '/a.js'}]"),
        ("ecosystem.config.mjs", "export default {apps: [{script: process.cwd() + '/a.js'}]}"),
        ("named.config.mjs", "export const apps = [{script: process.cwd() + '/a.js'}]"),
    ],
)
def test_javascript_is_run_in_its_own_folder(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    ecosystem = run_script(tmp_path / name)
    assert [app["script"] for app in ecosystem.apps] == [f"{tmp_path}/a.js"]


@_node
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("throw new Error('no luck')", "node cannot read it: no luck"),
        ("module.exports = {", r"node cannot read it: Unexpected end of input|node cannot read it: .*ecosystem"),
        ("module.exports = () => ({})", "node cannot read it: it exports a function; PM2 wants an object"),
        ("module.exports = []", "there are no apps in it"),
        ("process.exit(3)", "node cannot read it: node ended with 3"),
    ],
)
def test_javascript_that_fails_is_told_in_a_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "ecosystem.config.js"
    path.write_text(text)
    with pytest.raises(FleetFileError, match=complaint) as caught:
        convert(run_script(path))
    assert len(str(caught.value).splitlines()) == 1


@_node
def test_javascript_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetctl.pm2.ecosystem.MOST_SECONDS", 0.5)
    path = tmp_path / "ecosystem.config.js"
    path.write_text("while (true) {}")
    with pytest.raises(FleetFileError, match=r"did not end within 0\.5 s"):
        run_script(path)
