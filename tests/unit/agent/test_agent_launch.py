from fleet_agent.launch import Extra, HostContext, Local, build_launch
from fleet_agent.supervisor.protocol import Key, Launch
from fleet_core.spec import AppSpec

HOST = HostContext(
    "host1",
    "10.0.0.1",
    {"PATH": "/bin", "HOME": "/root", "SECRET": "x", "NODE_OPTIONS": "--inspect"},
    "/a b/preload.js",
)


def launch(port: int = 20_001, local: Local = Local(), **fields: object) -> Launch:  # noqa: B008 - a frozen value
    spec = AppSpec.model_validate({"name": "web", "argv": ["node", "app.js"], "cwd": "/srv", **fields})
    return build_launch(spec, Key("web", 3, 7), 5, "digest", port, HOST, local)


def test_a_worker_gets_a_clean_environment_and_its_place_in_the_fleet() -> None:
    assert launch().env == {
        "PATH": "/bin",
        "HOME": "/root",
        "HOST": "10.0.0.1",
        "PORT": "20001",
        "FLEET_PORT": "20001",
        "FLEET_ADDRESS": "10.0.0.1",
        "FLEET_APP": "web",
        "FLEET_HOST": "host1",
        "FLEET_WORKER_ID": "3",
        "FLEET_GENERATION": "7",
        "FLEET_REVISION": "5",
    }


def test_the_apps_own_variables_win_over_defaults_but_not_over_its_port() -> None:
    env = launch(
        runtime="node", env={"NODE_ENV": "test", "PATH": "/opt", "HOST": "::", "PORT": "1", "FLEET_APP": "x"}
    ).env
    assert (env["NODE_ENV"], env["PATH"], env["HOST"]) == ("test", "/opt", "::")
    assert (env["PORT"], env["FLEET_APP"]) == ("20001", "web")


def test_node_runs_in_production_with_the_preload_beside_its_own_options() -> None:
    assert launch(runtime="node").env["NODE_ENV"] == "production"
    assert launch(runtime="node").env["NODE_OPTIONS"] == '--require "/a b/preload.js"'
    own = launch(runtime="node", env={"NODE_OPTIONS": "--max-old-space-size=512"}, declared_port=3000).env
    assert own["NODE_OPTIONS"] == '--require "/a b/preload.js" --max-old-space-size=512'
    assert own["FLEET_DECLARED_PORT"] == "3000"
    assert "NODE_OPTIONS" not in launch().env


def test_a_worker_that_does_not_listen_has_no_port() -> None:
    env = launch(port=0, listen_mode="none").env
    assert not {"PORT", "FLEET_PORT", "HOST", "FLEET_DECLARED_PORT"} & env.keys()


def test_a_host_without_a_path_gives_the_usual_one() -> None:
    spec = AppSpec.model_validate({"name": "web", "argv": ["x"], "cwd": "/"})
    bare = build_launch(spec, Key("web", 1, 1), 1, "d", 0, HostContext("h", "a", {}, "/p"), Local())
    assert bare.env["PATH"].endswith("/usr/bin:/sbin:/bin")


def test_policies_and_notes_are_carried() -> None:
    made = launch(stop={"signal": "SIGINT", "grace_seconds": 3}, restart={"max_restarts": 4, "window_seconds": 9})
    assert (made.stop_signal, made.grace_seconds, made.max_restarts, made.window_seconds) == (2, 3, 4, 9)
    assert Extra.of(made) == Extra(5, "digest", "10.0.0.1")
    assert Extra.of(Launch(["x"], "/", {})) == Extra()


def test_the_later_source_of_a_variable_wins() -> None:
    spec = AppSpec.model_validate(
        {
            "name": "web",
            "argv": ["x"],
            "cwd": "/",
            "env": {"C": "app", "D": "app", "E": "app"},
            "worker_env": {3: {"D": "slot", "PORT": "1"}, 4: {"E": "another slot"}},
        }
    )
    host = HostContext("h", "a", {}, "/p", {"A": "host", "B": "host", "C": "host", "HOME": "/host"})
    local = Local({"B": "file", "C": "file"}, {"HOME": "/home/web", "USER": "web"})
    env = build_launch(spec, Key("web", 3, 1), 1, "d", 20_001, host, local).env
    assert {name: env[name] for name in "ABCDE"} == {"A": "host", "B": "file", "C": "app", "D": "slot", "E": "app"}
    assert (env["HOME"], env["USER"], env["PORT"]) == ("/host", "web", "20001")


def test_a_worker_of_another_user_never_gets_the_agents_home() -> None:
    assert launch(local=Local({}, {"HOME": "/home/web"})).env["HOME"] == "/home/web"
    assert "HOME" not in launch(local=Local({}, {})).env


def test_workers_that_share_a_socket_are_told_its_port_and_hold_none_of_their_own() -> None:
    made = launch(listen_mode="socket")
    assert (made.port, made.listen_address, made.listen_port) == (0, "10.0.0.1", 20_001)
    assert (made.env["PORT"], made.env["HOST"], Extra.of(made).address) == ("20001", "10.0.0.1", "10.0.0.1")


def test_a_node_program_on_a_shared_socket_is_ready_and_drained_by_the_preload() -> None:
    shared = launch(listen_mode="socket", runtime="node")
    assert (shared.channel, shared.ready_by, shared.shutdown_message) == (True, "listening", True)
    told = launch(listen_mode="socket", runtime="node", ready={"method": "message"})
    assert told.ready_by == "message"
    alone = launch(listen_mode="port", runtime="node")
    assert (alone.ready_by, alone.shutdown_message) == ("", False)
    python = launch(listen_mode="socket")
    assert (python.ready_by, python.shutdown_message) == ("", False)


def test_identity_limits_and_log_policy_reach_the_supervisor() -> None:
    made = launch(
        identity={
            "user": "web",
            "group": "www",
            "umask": "027",
            "nice": 5,
            "resource_limits": {"NOFILE": {"soft": 10, "hard": -1}},
        },
        limits={"memory_max_bytes": 1, "cpu_max_cores": 1.5, "pids_max": 9},
        log={
            "timestamps": True,
            "json_lines": True,
            "max_bytes": 5000,
            "max_files": 2,
            "max_age_seconds": 7,
            "compress": True,
        },
        restart={"mode": "on_failure", "stop_exit_codes": [3]},
    )
    assert (made.user, made.group, made.umask, made.nice) == ("web", "www", 0o027, 5)
    assert made.resource_limits == {"NOFILE": [10, -1]}
    assert (made.memory_max_bytes, made.cpu_max_cores, made.pids_max) == (1, 1.5, 9)
    assert (made.log_timestamps, made.log_json, made.log_max_bytes, made.log_files) == (True, True, 5000, 2)
    assert (made.log_max_age_seconds, made.log_compress) == (7, True)
    assert (made.restart_mode, made.stop_exit_codes) == ("on_failure", [3])


def test_a_worker_that_speaks_for_itself_gets_the_means_to() -> None:
    notifies = launch(ready={"method": "notify", "watchdog_seconds": 3})
    assert (notifies.ready_by, notifies.notify, notifies.watchdog_seconds, notifies.channel) == (
        "notify",
        True,
        3,
        False,
    )
    watched = launch(ready={"watchdog_seconds": 3})
    assert (watched.ready_by, watched.notify) == ("", True)
    sends = launch(runtime="node", ready={"method": "message"}, stop={"shutdown_message": True})
    assert (sends.ready_by, sends.notify, sends.channel, sends.shutdown_message) == ("message", False, True, True)
    assert launch(runtime="node").channel, "process.send exists for every Node program"
    assert not launch().channel


def test_counters_count_from_slot_to_slot_over_env_and_under_the_slots_own() -> None:
    env = launch(env={"N": "x"}, counters={"N": 0, "METRICS": 9000, "ROLE": 1}, worker_env={3: {"ROLE": "third"}}).env
    assert (env["N"], env["METRICS"], env["ROLE"]) == ("2", "9002", "third")
