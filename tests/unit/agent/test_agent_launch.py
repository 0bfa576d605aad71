from fleet_agent.launch import Extra, HostContext, build_launch
from fleet_agent.supervisor.protocol import Key, Launch
from fleet_core.spec import AppSpec

HOST = HostContext(
    "host1",
    "10.0.0.1",
    {"PATH": "/bin", "HOME": "/root", "SECRET": "x", "NODE_OPTIONS": "--inspect"},
    "/a b/preload.js",
)


def launch(port: int = 20_001, **fields: object) -> Launch:
    spec = AppSpec.model_validate({"name": "web", "argv": ["node", "app.js"], "cwd": "/srv", **fields})
    return build_launch(spec, Key("web", 3, 7), 5, "digest", port, HOST)


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
    bare = build_launch(spec, Key("web", 1, 1), 1, "d", 0, HostContext("h", "a", {}, "/p"))
    assert bare.env["PATH"].endswith("/usr/bin:/sbin:/bin")


def test_policies_and_notes_are_carried() -> None:
    made = launch(stop={"signal": "SIGINT", "grace_seconds": 3}, restart={"max_restarts": 4, "window_seconds": 9})
    assert (made.stop_signal, made.grace_seconds, made.max_restarts, made.window_seconds) == (2, 3, 4, 9)
    assert Extra.of(made) == Extra(5, "digest", "10.0.0.1")
    assert Extra.of(Launch(["x"], "/", {})) == Extra()
