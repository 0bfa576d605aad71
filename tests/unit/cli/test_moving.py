"""What other supervisors run, read from what the real ones wrote.

`recordings/` was made by PM2 7.0.4 (`pm2 jlist`, `pm2 save`, without its own axm_ entries), forever 4.0.3 (`list --plain`)
and strong-mesh-models 8, the store of strong-pm (`strong-pm.json`); paths were shortened.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fleet_core.spec import AppSpec
from fleetctl.errors import CliError
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.tree import FleetFileError
from fleetctl.main import run
from fleetctl.moving.forever import Process, app_of_process, apps_of_forever, processes_of
from fleetctl.moving.imported import Imported, printed_by, together
from fleetctl.moving.pm2 import apps_of_pm2
from fleetctl.moving.slc import apps_of_slc, models_of_database, models_of_json
from fleetctl.moving.systemd import apps_of_systemd

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> str:
    return (RECORDINGS / name).read_text()


def specs(imported: Imported) -> dict[str, AppSpec]:
    return {app.name: app.spec for app in imported.apps}


@pytest.mark.parametrize("name", ["pm2-jlist.json", "pm2-dump.json"])
def test_pm2s_processes_become_apps_with_as_many_workers(name: str) -> None:
    imported = apps_of_pm2(recorded(name), name, {"SHELLVAR": "x"})
    found = specs(imported)
    assert {app.name: app.size for app in imported.apps} == {"web": Wanted(2), "my-job": Wanted(1), "sh": Wanted(1)}
    web, job, shell = found["web"], found["my-job"], found["sh"]
    assert web.argv == ("node", "--max-old-space-size=200", "/srv/run/server.js")
    assert (web.cwd, web.env, web.route.http) == ("/srv/run", {"LOG": "info"}, ":3998")
    assert (web.limits.memory_restart_bytes, web.stop.grace_seconds) == (300 * 1024**2, 3)
    assert (job.argv, job.env) == (("node", "/srv/run/job.js", "--x", "1"), {})
    assert (job.restart.mode, job.cron_restart) == ("never", "0 3 * * *")
    assert (shell.argv, shell.counters["N"]) == (("/usr/bin/bash", "-c", "sleep 1000"), 5)
    assert imported.warnings == (
        "idle: it does not run: left out",
        "my-job: name: 'My Job' becomes my-job",
        "web: env: look whether each of these is the app's own: PORT, LOG",
        "sh: env: look whether each of these is the app's own: N",
    )


def test_a_log_file_that_somebody_chose_is_told() -> None:
    text = recorded("pm2-jlist.json").replace("/home/ada/.pm2/logs/sh-out.log", "/var/log/sh.log")
    told = [warning for warning in apps_of_pm2(text, "f", {}).warnings if "log files" in warning]
    assert [warning.split(": ")[:2] for warning in told] == [["sh", "out_file"]]


def test_what_pm2_prints_before_its_list_is_no_matter() -> None:
    noise = ">>>> In-memory PM2 is out-of-date, do: [pm2 update]\n"
    text = noise + json.dumps(json.loads(recorded("pm2-jlist.json")))
    assert len(apps_of_pm2(text, "jlist", {}).apps) == 3
    with pytest.raises(FleetFileError, match="this is not PM2's list"):
        apps_of_pm2("no", "jlist", {})


UNIT = """
[Unit]
Description=Shop
After=network.target
StartLimitBurst=4
StartLimitIntervalSec=1min 30s

[Service]
Type=notify
ExecStartPre=/bin/true
ExecStart=
ExecStart=-/usr/bin/node --max-old-space-size=200 \\
  "/srv/my shop/server.js"
WorkingDirectory=/srv/shop
Environment=A=1 "B=two words"
Environment=C=3
EnvironmentFile=/etc/shop.env
User=www
Group=www
UMask=0027
Nice=5
LimitNOFILE=1000:2000
LimitCORE=infinity
Restart=on-failure
RestartSec=500ms
RestartPreventExitStatus=3 SIGTERM
KillSignal=SIGQUIT
TimeoutStopSec=20
TimeoutStartSec=2min
WatchdogSec=30s
MemoryMax=512M
CPUQuota=150%
TasksMax=100
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


def test_a_unit_of_systemd_becomes_an_app() -> None:
    imported = apps_of_systemd(UNIT, "my_shop.service", "f")
    (app,) = imported.apps
    spec = app.spec
    assert (spec.name, app.size) == ("my-shop", Wanted(1))
    assert spec.argv == ("/usr/bin/node", "--max-old-space-size=200", "/srv/my shop/server.js")
    assert (spec.cwd, spec.env, spec.env_files) == (
        "/srv/shop",
        {"A": "1", "B": "two words", "C": "3"},
        ("/etc/shop.env",),
    )
    assert (spec.identity.user, spec.identity.group, spec.identity.umask, spec.identity.nice) == (
        "www",
        "www",
        "0027",
        5,
    )
    limits = {name: (limit.soft, limit.hard) for name, limit in spec.identity.resource_limits.items()}
    assert limits == {"NOFILE": (1000, 2000), "CORE": (-1, -1)}
    assert (spec.restart.mode, spec.restart.backoff_initial_seconds, spec.restart.stop_exit_codes) == (
        "on_failure",
        0.5,
        (3,),
    )
    assert (spec.restart.max_restarts, spec.restart.window_seconds) == (4, 90)
    assert (spec.stop.signal, spec.stop.grace_seconds) == ("SIGQUIT", 20)
    assert (spec.ready.method, spec.ready.start_timeout_seconds, spec.ready.watchdog_seconds) == ("notify", 120, 30)
    assert (spec.limits.memory_max_bytes, spec.limits.cpu_max_cores, spec.limits.pids_max) == (512 * 1024**2, 1.5, 100)
    assert [warning.split(": ")[1] for warning in imported.warnings] == [
        "ExecStartPre",
        "RestartPreventExitStatus",
        "ProtectSystem",
        "listen",
    ]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("Type=forking", "Type"),
        ("Restart=on-abort", "Restart"),
        ("Restart=sometimes", "Restart"),
        ("WorkingDirectory=~", "WorkingDirectory"),
        ("EnvironmentFile=-/etc/x", "EnvironmentFile"),
        ("CPUQuota=2", "CPUQuota"),
        ("TimeoutStopSec=soon", "TimeoutStopSec"),
        ("MemoryMax=10%", "MemoryMax"),
        ("LimitCPU=5min", "LimitCPU"),
        ("ExecStop=/bin/x", "ExecStop"),
        ("User=%i", "User"),
        ("ExecStart=/bin/x $MAINPID", "ExecStart"),
        ("ExecStart=@/bin/x y", "ExecStart"),
        ("Nice=40", "identity.nice"),
        ("UMask=99", "identity.umask"),
        ("LimitNONSENSE=1", "identity.resource_limits"),
        ("KillSignal=SIGNOTHING", "stop.signal"),
        ("KillMode=process", "KillMode"),
        ("[Unit]\nOnFailure=mail.service", "OnFailure"),
        ("[Unit]\nConditionPathExists=/srv", "ConditionPathExists"),
        ("[Unit]\nBindsTo=x.mount", "BindsTo"),
    ],
)
def test_what_of_a_unit_is_not_kept_as_it_is_is_told_in_one_line(line: str, key: str) -> None:
    imported = apps_of_systemd(f"[Service]\nExecStart=/bin/x\n{line}\n", "x.service", "f")
    told = [warning for warning in imported.warnings if warning.startswith(f"x: {key}: ")]
    assert len(told) == (2 if line.startswith("ExecStart=") else 1)


@pytest.mark.parametrize(
    ("lines", "path", "value"),
    [
        ("", "stop.grace_seconds", 90),
        ("", "ready.start_timeout_seconds", 90),
        ("TimeoutStopSec=0", "stop.grace_seconds", 86_400),
        ("TimeoutSec=5min", "stop.grace_seconds", 300),
        ("TimeoutSec=5min", "ready.start_timeout_seconds", 300),
        ("KillSignal=2", "stop.signal", "SIGINT"),
        ("KillSignal=INT", "stop.signal", "SIGINT"),
        ("StartLimitInterval=0", "restart.max_restarts", 100_000),
        ("Environment=A=100%%", "env", {"A": "100%"}),
        ("ExecStart=\nExecStart=/bin/y 100%% $$HOME %%i", "argv", ("/bin/y", "100%", "$HOME", "%i")),
        ("ExecStart=\nExecStart=@-/bin/y me --x", "argv", ("/bin/y", "--x")),
    ],
)
def test_what_systemd_means_by_it_is_kept(lines: str, path: str, value: object) -> None:
    (app,) = apps_of_systemd(f"[Service]\nExecStart=/bin/x\n{lines}\n", "x.service", "f").apps
    found: object = app.spec
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_a_unit_without_a_command_is_no_app() -> None:
    with pytest.raises(FleetFileError, match="there is no ExecStart"):
        apps_of_systemd("[Timer]\nOnCalendar=daily\n", "x.timer", "x.timer")


def test_forevers_list_names_the_processes() -> None:
    assert processes_of(recorded("forever-list.txt")) == [Process("web", 30273), Process("job", 30274)]
    assert processes_of("info:    No forever processes running\n") == []
    imported = app_of_process(Process("My Web", 1), ["/usr/bin/node", "/srv/a.js"], "/srv")
    (app,) = imported.apps
    assert (app.name, app.spec.argv, app.spec.cwd, app.spec.runtime) == (
        "my-web",
        ("/usr/bin/node", "/srv/a.js"),
        "/srv",
        "node",
    )
    assert len(imported.warnings) == 2


def test_forevers_file_becomes_apps() -> None:
    text = """// as forever start takes it
[{"uid": "web", "script": "server.js", "sourceDir": "/srv/run", "args": ["--port", "80"], "max": 5, "minUptime": 2000,
  "spinSleepTime": 500, "append": true, "watch": false, "logFile": "/var/log/web.log"},
 {"script": "job.py", "command": "python3 -u", "workingDir": "/var"}]"""
    imported = apps_of_forever(text, "f")
    web, job = specs(imported)["web"], specs(imported)["job"]
    assert (web.argv, web.cwd) == (("node", "/srv/run/server.js", "--port", "80"), "/srv/run")
    restart = web.restart
    assert (restart.max_restarts, restart.stable_seconds, restart.backoff_max_seconds) == (4, 2, 0.5)
    assert (job.argv, job.cwd, job.runtime) == (("python3", "-u", "/job.py"), "/var", "program")
    assert [warning.split(": ")[:2] for warning in imported.warnings] == [
        ["web", "logFile"],
        ["web", "listen"],
        ["job", "listen"],
    ]
    for wrong in ("[]", "{}", '{"script": 3}', '{"script": "a", "max": "x"}'):
        with pytest.raises(FleetFileError):
            apps_of_forever(wrong, "f")


def test_services_of_strong_pm_become_apps() -> None:
    models = models_of_json(recorded("strong-pm.json"), "strong-pm.json")
    imported = apps_of_slc(models, Path("/var/lib/strong-pm"), "f")
    (app,) = imported.apps
    assert (app.name, app.size) == ("shop", Wanted(4))
    assert (app.spec.argv, app.spec.cwd) == (("node", "."), "/var/lib/strong-pm/svc/1/work/current")
    assert (app.spec.env, app.spec.route.http) == ({"LOG": "info"}, ":3001")
    assert len(imported.warnings) == 1


def service(**fields: Any) -> dict[str, Any]:
    return {"id": 2, "name": "Shop", "started": True, "env": {}, **fields}


def instance(**fields: Any) -> dict[str, Any]:
    return {"id": 7, "serverServiceId": 2, "started": True, "setSize": 0, **fields}


def test_strong_pms_size_port_and_rest_are_kept() -> None:
    def only(one: dict[str, Any], other: dict[str, Any]) -> Imported:
        return apps_of_slc({"ServerService": [one], "ServiceInstance": [other]}, Path("/base"), "f")

    assert only(service(), instance(cpus="CPU")).apps[0].size == Wanted(PerCore())
    assert only(service(), instance(setSize=3)).apps[0].size == Wanted(3)
    assert only(service(), instance()).apps[0].spec.route.http == ":3002"
    assert only(service(started=False), instance()) == Imported((), ("shop: it does not run: left out",))
    assert len(only(service(), instance(tracingEnabled=True)).warnings) == 2


def test_strong_pms_database_is_read(tmp_path: Path) -> None:
    path = tmp_path / "strong-mesh.db"
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE "ServerService" (id INTEGER, name TEXT, started INTEGER, env TEXT)')
        database.execute(
            'CREATE TABLE "ServiceInstance" (id INTEGER, serverServiceId INTEGER, started INTEGER, cpus TEXT)'
        )
        database.execute('INSERT INTO "ServerService" VALUES (1, \'shop\', 1, \'{"A":"b"}\')')
        database.execute("INSERT INTO \"ServiceInstance\" VALUES (4, 1, 1, '2')")
    database.close()
    (app,) = apps_of_slc(models_of_database(path), tmp_path, "f").apps
    assert (app.size, app.spec.env, app.spec.cwd) == (Wanted(2), {"A": "b"}, f"{tmp_path}/svc/4/work/current")
    (tmp_path / "other.db").write_text("no")
    with pytest.raises(FleetFileError, match=r"this is not strong-pm's strong-mesh\.db"):
        models_of_database(tmp_path / "other.db")


def test_two_of_one_name_are_refused() -> None:
    one = apps_of_systemd("[Service]\nExecStart=/bin/x\n", "x.service", "f")
    with pytest.raises(CliError, match="two of them would be the app x"):
        together([one, one])


def test_a_program_that_is_not_there_fails_or_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="no-such-program is not on PATH"):
        printed_by(("no-such-program",))
    with pytest.raises(CliError, match=r"sh -c echo why >&2; exit 3: why"):
        printed_by(("sh", "-c", "echo why >&2; exit 3"))
    monkeypatch.setattr("fleetctl.moving.imported.MOST_SECONDS", 0.1)
    with pytest.raises(CliError, match=r"sleep 20 did not end within 0\.1 s"):
        printed_by(("sleep", "20"))


def test_import_writes_a_file_that_can_be_read_and_tells_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleetctl.fleet_file.document import read_file

    monkeypatch.delenv("SHELLVAR", raising=False)
    out = tmp_path / "fleet.yaml"
    assert run(["import", "pm2", str(RECORDINGS / "pm2-jlist.json"), "-f", str(out)]) == 0
    assert [app.name for app in read_file(out).apps] == ["web", "my-job", "sh"]
    assert "idle: it does not run: left out" in capsys.readouterr().err
    assert run(["import", "pm2", str(RECORDINGS / "pm2-jlist.json"), "-f", str(out)]) == 5
    unit = tmp_path / "x.service"
    unit.write_text(UNIT)
    assert run(["import", "systemd", str(unit), "-o", "json"]) == 0
    assert "x" in json.loads(capsys.readouterr().out)["apps"]
    assert run(["import", "slc", str(tmp_path)]) == 4
    assert run(["import", "pm2", str(tmp_path / "none")]) == 4
    monkeypatch.setenv("PM2_HOME", str(tmp_path))
    assert run(["import", "pm2"]) == 4
    assert "no PM2 runs" in capsys.readouterr().err
