"""The fleet file: what it says, what it refuses and where, and that what is written can be read again."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_core.spec import AppSpec
from fleetctl.fleet_file import document, writer
from fleetctl.fleet_file.code import Code
from fleetctl.fleet_file.descriptions import DESCRIPTIONS
from fleetctl.fleet_file.document import MOST_BYTES, WantedApp, read_file
from fleetctl.fleet_file.schema import field_names, json_schema
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.toml_tree import toml_tree
from fleetctl.fleet_file.tree import FleetFileError, plain
from fleetctl.fleet_file.yaml_tree import MOST_NODES, yaml_tree
from scripts.fleet_file_docs import DOCS, PAGES, page_text, schema_text


def read(tmp_path: Path, text: str, name: str = "fleet.yaml") -> dict[str, WantedApp]:
    path = tmp_path / name
    path.write_text(text)
    return {app.name: app for app in read_file(path).apps}


def refusal(tmp_path: Path, text: str, name: str = "fleet.yaml") -> list[str]:
    """Each complaint, after the file's name."""
    with pytest.raises(FleetFileError) as caught:
        read(tmp_path, text, name)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.complaints)
    return [line.removeprefix(f"{tmp_path}/{name}:") for line in lines]


def test_a_route_says_what_is_done_with_requests(tmp_path: Path) -> None:
    apps = read(
        tmp_path,
        """
apps:
  shop:
    command: ./a
    route:
      http: ":8080"
      compression: true
      rate_limit: {requests: 100, per: 10s}
      cache: {max_age: 10s, max_object: 256K}
      slow_start: 30s
      access_log: {format: json, max_size: 1M}
      error_pages:
        503: "<h1>zurück</h1>"
  db:
    command: ./b
    route: {tcp: ":5432", max_connections: 50, timeouts: {tunnel: 8h}}
""",
    )
    route = apps["shop"].spec.route
    assert (route.compression, route.slow_start_seconds, route.error_pages) == (True, 30, {503: "<h1>zurück</h1>"})
    assert (route.rate_limit.requests, route.rate_limit.per_seconds) == (100, 10)
    assert (route.cache.max_age_seconds, route.cache.max_object_bytes) == (10, 256 << 10)
    assert (route.access_log.format, route.access_log.max_bytes, route.access_log.max_files) == ("json", 1 << 20, 5)
    assert (apps["db"].spec.route.tcp, apps["db"].spec.route.timeouts.tunnel_seconds) == (":5432", 8 * 3600)


def test_a_file_says_what_an_app_is(tmp_path: Path) -> None:
    apps = read(
        tmp_path,
        """
apps:
  shop:
    script: ./web/server.js
    args: --greeting 'good day'
    size: 4
    ready: {path: /healthz, start_timeout: 2m}
    limits: {memory_restart: 512M}
    restart: {mode: on-failure, stop_exit_codes: 0}
    identity: {umask: 027, user: 1000, resource_limits: {NOFILE: 65536, CORE: {soft: 0, hard: unlimited}}}
    route: {http: 8080}
    stop: {signal: int}
    placement: {labels: {zone: a}}
  mailer:
    command: [celery, -A, mail, worker]
    cwd: mail
    listen: none
    hosts: {host1: 2, host2: 1}
    worker_env: {1: {ROLE: primary}}
    rollout: {max_surge: 0}
""",
    )
    shop, mailer = apps["shop"].spec, apps["mailer"].spec
    assert shop.argv == ("node", f"{tmp_path}/web/server.js", "--greeting", "good day")
    assert (shop.cwd, shop.runtime) == (str(tmp_path), "node")
    assert apps["shop"].size == Wanted(4)
    assert (shop.ready.http_path, shop.ready.start_timeout_seconds) == ("/healthz", 120)
    assert shop.limits.memory_restart_bytes == 512 * 1024 * 1024
    assert (shop.restart.mode, shop.restart.stop_exit_codes) == ("on_failure", (0,))
    assert (shop.identity.umask, shop.identity.user) == ("027", "1000")
    assert shop.identity.resource_limits["CORE"].plain() == {"soft": 0, "hard": -1}
    assert (shop.route.http, shop.stop.signal) == ("8080", "SIGINT")
    assert (mailer.argv, mailer.cwd) == (("celery", "-A", "mail", "worker"), f"{tmp_path}/mail")
    assert apps["mailer"].size == Wanted(hosts={"host1": 2, "host2": 1})
    assert mailer.worker_env == {1: {"ROLE": "primary"}}
    assert mailer.rollout.max_unavailable == 1


def test_code_counts_from_the_file_and_what_runs_in_it_from_the_code(tmp_path: Path) -> None:
    apps = read(
        tmp_path,
        """
apps:
  here: {script: server.js, code: .}
  ref: {command: npm start, code: {path: ./service, ref: v2.1}, cwd: sub/}
  sub: {script: sub/bin/a.py, code: app.tar.gz, cwd: sub}
  npm: {command: node a.js, code: {npm_pack: true}}
  named: {command: node a.js, code: {digest: "sha256:%s"}}
"""
        % ("ab" * 32),
    )
    assert [app.spec.needs_artifact for app in apps.values()] == [True] * 5
    said = {name: (app.spec.argv, app.spec.cwd, app.code) for name, app in apps.items()}
    assert said == {
        "here": (("node", "./server.js"), ".", Code(str(tmp_path))),
        "ref": (("npm", "start"), "sub", Code(str(tmp_path / "service"), ref="v2.1")),
        "sub": (("python3", "./bin/a.py"), "sub", Code(str(tmp_path / "app.tar.gz"))),
        "npm": (("node", "a.js"), ".", Code(str(tmp_path), npm_pack=True)),
        "named": (("node", "a.js"), ".", Code(digest="ab" * 32)),
    }
    written = apps["here"].code
    assert written is not None
    assert written.written == f"{tmp_path}/fleet.yaml:3:35: apps.here.code"


@pytest.mark.parametrize(
    ("app", "complaint"),
    [
        ("code: {pth: .}", "apps.a.code.pth: there is no such field: did you mean path?"),
        ("code: {path: ., build: make}", "apps.a.code.build: build stands beside code, not in it"),
        ("code: {}", "apps.a.code: write path: a folder or an archive, from the file's folder"),
        ("code: [a]", "apps.a.code: a list is not a mapping of fields"),
        ("code: {digest: abc}", "apps.a.code.digest: 'abc' is no digest: 64 digits and letters a to f, as "),
        (f"code: {{digest: {'a' * 64}, ref: b}}", "apps.a.code.ref: digest says which code it is: leave it out"),
        ("code: {ref: b, npm_pack: true}", "apps.a.code.npm_pack: it takes the files as they are: leave ref out"),
        ("code: {npm_pack: 3}", "apps.a.code.npm_pack: write true or false"),
        ("code: ., cwd: ..", "apps.a.cwd: it is not in the code: write a path from the code's folder"),
        ("code: ., cwd: /srv", "apps.a.cwd: it is not in the code: write a path from the code's folder"),
    ],
)
def test_code_that_makes_no_sense_is_refused_where_it_stands(tmp_path: Path, app: str, complaint: str) -> None:
    (line,) = refusal(tmp_path, f"apps:\n  a: {{command: ./a, {app}}}\n")
    assert line.partition(": ")[2].startswith(complaint)


def test_a_script_outside_the_code_is_refused(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, "apps:\n  a: {script: ../a.js, code: .}\n")
    assert line == "2:15: apps.a.script: it is not in the code: write a path from the code's folder"


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    yaml = (
        "apps:\n  shop:\n    command: node x.js\n    size: cpu-1\n    env: {A: 1.10, B: x}\n    ready: {timeout: 3}\n"
    )
    toml = '[apps.shop]\ncommand = "node x.js"\nsize = "cpu-1"\nenv = { A = 1.10, B = "x" }\n[apps.shop.ready]\ntimeout = 3\n'
    assert read(tmp_path, yaml) == read(tmp_path, toml, "fleet.toml")
    assert read(tmp_path, yaml)["shop"].size == Wanted(PerCore(1))


def test_values_stay_as_they_are_written_where_a_text_is_wanted(tmp_path: Path) -> None:
    text = "apps: {a: {command: x, env: {A: no, B: 0755, C: 1.10, D: true, E: '1', F: 2020-01-01, G: 1e3, H: 12:30}}}"
    assert read(tmp_path, text)["a"].spec.env == {
        "A": "no", "B": "0755", "C": "1.10", "D": "true", "E": "1", "F": "2020-01-01", "G": "1e3", "H": "12:30",
    }  # fmt: skip


def test_anchors_aliases_and_merges_work_and_what_is_written_wins(tmp_path: Path) -> None:
    text = """
x-base: &base {size: 2, env: &env {A: a, B: b}}
apps:
  one: {<<: *base, command: x}
  two: {<<: *base, command: x, size: 3, env: {<<: *env, B: c}}
"""
    apps = read(tmp_path, text)
    assert (apps["one"].size, apps["one"].spec.env) == (Wanted(2), {"A": "a", "B": "b"})
    assert (apps["two"].size, apps["two"].spec.env) == (Wanted(3), {"A": "a", "B": "c"})


_BAD_NAME = "app name 'Bad' is not valid: use up to 63 of a-z, 0-9 and -, starting and ending with a letter or digit"


def test_every_mistake_of_a_file_is_told_with_its_place_its_field_and_the_nearest_right_one(tmp_path: Path) -> None:
    text = """apps:
  shop:
    comand: node x
    command: node x
    ready:
      start_timeut: 3
      interval: 1w
    restart: {mode: sometimes, max_restarts: yes}
    listen: no
    limits: {memory_max: lots}
  Bad: {command: x, size: -2}
aps: {}
"""
    assert refusal(tmp_path, text) == [
        "3:5: apps.shop.comand: there is no such field: did you mean command?",
        "6:7: apps.shop.ready.start_timeut: there is no such field: did you mean start_timeout?",
        "7:17: apps.shop.ready.interval: '1w' is not a duration: write 30s, 5m or 1h",
        "8:21: apps.shop.restart.mode: 'sometimes' is not one of always, on-failure, never",
        "8:46: apps.shop.restart.max_restarts: 'yes' is not a whole number",
        "9:13: apps.shop.listen: 'no' is not one of port, none, socket",
        "10:26: apps.shop.limits.memory_max: 'lots' is not a number of bytes: write 300M, 1.5G or 1048576",
        f"11:3: apps.Bad: {_BAD_NAME}",
        "11:27: apps.Bad.size: write a number of workers, or cpu for one per core (cpu-1: one less on each host)",
        "12:1: aps: there is no such field: did you mean apps?",
    ]


def test_every_value_out_of_range_and_every_broken_rule_is_told_at_once(tmp_path: Path) -> None:
    text = """apps:
  a:
    command: x
    ready: {timeout: 0, interval: 2d, path: healthz}
    counters: {A: -1, B: 2147483648}
    log: {max_size: 1000.5, max_files: 2000}
    restart: {stop_exit_codes: [1, 300]}
    identity: {resource_limits: {CORE: 9223372036854775808}}
  b:
    command: x
    ready: {path: healthz, method: message}
    cron_restart: foo
    rollout: {max_surge: 0, max_unavailable: 0}
    identity: {umask: 999, resource_limits: {CORE: 1, NOPE: 1}}
    counters: {A=B: 1}
  c: {command: x, stop: {signal: foo}, route: {http: bar}}
"""
    zeros = "max_surge and max_unavailable are both 0, so no worker could ever be replaced: raise one"
    variable = "environment variable 'A=B' cannot be set: names hold no = and no NUL byte"
    assert refusal(tmp_path, text) == [
        "4:22: apps.a.ready.timeout: must be greater than 0 seconds",
        "4:35: apps.a.ready.interval: must be at most 86400 seconds",
        "5:19: apps.a.counters.A: must be at least 0",
        "5:26: apps.a.counters.B: must be at most 2147483647",
        "6:21: apps.a.log.max_size: '1000.5' is not a size: 300M or 1.5G",
        "6:40: apps.a.log.max_files: must be at most 1000",
        "7:36: apps.a.restart.stop_exit_codes[1]: must be at most 255",
        "8:40: apps.a.identity.resource_limits.CORE: must be at most 9223372036854775807",
        "11:13: apps.b.ready.path: health path 'healthz' must start with /",
        "12:5: apps.b.cron_restart: cron time 'foo' is not valid: write five fields as in crontab(5), '0 3 * * *', or @daily",
        f"13:5: apps.b.rollout: {zeros}",
        "14:16: apps.b.identity.umask: umask '999' is not valid: write it in octal, for example 027",
        "14:28: apps.b.identity.resource_limits: resource limit 'NOPE' is not known: write NOFILE, CORE, AS, … (setrlimit(2))",
        f"15:5: apps.b.counters: {variable}",
        "16:26: apps.c.stop.signal: signal 'SIGFOO' is not known: write SIGTERM, SIGINT, …",
        "16:48: apps.c.route.http: address 'bar' is not valid: write ADDRESS:PORT, for example 127.0.0.1:8080 or :8080",
    ]


@pytest.mark.parametrize(
    ("app", "at", "complaint"),
    [
        ("{command: x, ready: {timeout: 0}}", "0", "apps.a.ready.timeout: must be greater than 0"),
        ("{command: x, cron_restart: foo}", "cron", "apps.a.cron_restart: cron time 'foo' is not valid"),
        ("{command: x, ready: {path: healthz}}", "path", "apps.a.ready.path: health path 'healthz' must start with /"),
        ("{command: x, env: {A=B: c}}", "env", "apps.a.env: environment variable 'A=B' cannot be set"),
        ("{command: x, ready: {method: http}}", "a: {", "apps.a: ready method http needs an http_path"),
        (
            "{command: x, route: {http: 80, error_pages: {404: x}}}",
            "error_pages",
            "apps.a.route.error_pages: no balancer answers 404",
        ),
        ("{command: x, worker_env: {0: {A: b}}}", "0", "apps.a.worker_env.0: it is not a whole number from 1"),
        ("{command: x, hosts: {h: 1}, size: 2}", "size", "apps.a.size: hosts says how many run on each"),
        ("{command: x, hosts: [h]}", "[h]", "apps.a.hosts: a list of hosts needs size"),
        ("{command: x, args: y}", "args", "apps.a.args: it goes with script"),
        ("{size: 1}", "{size", "apps.a: what shall run? Write command, or script"),
        ("{command: ''}", "''", "apps.a.command: write a program and its arguments"),
        ("{command: a 'b}", "a 'b", 'apps.a.command: "a \'b" cannot be split into words: no closing quotation'),
        ("{command: {a: b}}", "{a: b}", "apps.a.command: write a program and its arguments"),
        ("{command: x, env: [a]}", "[a]", "apps.a.env: a list is not a mapping"),
        ("[x]", "[x]", "apps.a: a list is not a mapping of fields"),
    ],
)
def test_a_bad_value_is_told_where_it_stands(tmp_path: Path, app: str, at: str, complaint: str) -> None:
    text = f"apps: {{a: {app}}}"
    assert refusal(tmp_path, text)[0].startswith(f"1:{text.index(at, 7) + 1}: {complaint}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("apps:\n  a: {command: x}\n  a: {command: y}\n", "3:3: a stands here a second time; the first is in line 2"),
        ("apps: !!map {}\n", "1:7: the tag tag:yaml.org,2002:map is not taken: write the plain value"),
        ("apps: {a: {command: !!python/name:os.system x}}", "1:21: the tag tag:yaml.org,2002:python/name:os.system is"),
        ("apps: {}\n---\napps: {}\n", "2:1: a second document: a file holds one"),
        ("apps: &a {b: *a}\n", "1:14: *a: no such anchor is complete before this line"),
        ("apps: {a: [}\n", "1:12: this is not YAML"),
        ("apps: \x01\n", "this is not YAML"),
        ("- a\n", "1:1: there are no apps"),
        ("", "there are no apps"),
        ("x-a: 1\n", "1:1: there are no apps"),
        ("apps: 3\n", "1:7: apps: write a mapping"),
        ("apps: " + "[" * 60 + "]" * 60, "1:47: nested more than 40 deep"),
    ],
)
def test_what_is_no_fleet_file_is_refused_in_a_line(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, text)[0]


def test_a_few_aliases_cannot_stand_for_more_than_the_bound(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert f"more than {MOST_NODES} values" in refusal(tmp_path, "\n".join([*lines, "apps: {}"]))[0]


def test_a_file_that_is_too_long_or_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    assert "longer than 1 MiB" in refusal(tmp_path, "#" * (MOST_BYTES + 1))[0]
    with pytest.raises(FleetFileError, match="it cannot be read: No such file or directory"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"apps: \xe9")
    with pytest.raises(FleetFileError, match="it is not UTF-8: byte 7"):
        read_file(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[apps.a]\ncommand = "x"\n"siz" = 3\n', "3:1: apps.a.siz: there is no such field: did you mean size?"),
        ('[apps.a]\ncommand = "x"\nready = { # \n', "this is not TOML"),
        ('[apps.a]\ncommand = "x"\n[apps.a.ready]\npath = """x"""\n', "4:1: apps.a.ready.path: health path 'x' must"),
        ('apps.a.command = "x"\napps.a.ready.timeout = 0\n', "2:14: apps.a.ready.timeout: must be greater than 0"),
        ('[apps.a]\ncommand = [\n "x",  # [\n  { y = 1 },\n]\n', "4:3: apps.a.command[1]: a mapping is not a text"),
        ('[apps.a]\ncommand = "x"\nsize = 1\nsize = 2\n', "this is not TOML: Cannot overwrite a value"),
    ],
)
def test_toml_is_refused_with_its_place_too(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, text, "fleet.toml")[0]


@pytest.mark.parametrize("field", ["ready.start_timeout", "limits.memory_max", "limits.cpu_max", "port", "size"])
def test_a_number_of_any_length_is_told(tmp_path: Path, field: str) -> None:
    text = f"apps.a.command = 'x'\napps.a.{field} = 1{'0' * 400}\n"
    (told,) = refusal(tmp_path, text, "fleet.toml")
    assert f": apps.a.{field}: " in told


def test_what_is_told_is_one_short_line_whatever_the_file_says(tmp_path: Path) -> None:
    text = json.dumps({"apps": {"a\n\x1b[2J": {"command": "x", "ready\0y": 1, "size": "\u202ex" * 50_000}}})
    for told in refusal(tmp_path, text):
        assert told.isprintable()
        assert len(told) < 1000


_KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=4)
_JSON = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(max_codepoint=0xD7FF), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _JSON, min_size=1, max_size=3))
def test_the_trees_hold_what_json_and_toml_say(data: dict[str, Any]) -> None:
    tree = yaml_tree(json.dumps(data, ensure_ascii=True), "f")
    assert tree is not None
    assert plain(tree) == data
    toml = "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in data.items())
    assert tomllib.loads(toml) == data
    tree = toml_tree(toml, "f")
    assert plain(tree) == data
    lines = toml.split("\n")
    for key, place in tree.keys.items():  # type: ignore[union-attr]
        assert lines[place.line - 1][place.column - 1 :].startswith(json.dumps(key))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[ # ]\n" + "".join(f"{_toml(each)},\n" for each in value) + "]"
    if isinstance(value, str):
        escaped = re.sub(r'[\x00-\x1f\x7f"\\]', lambda match: f"\\u{ord(match[0]):04x}", value)
        return f'"{escaped}"'
    return json.dumps(value)


def test_what_runs_can_be_written_and_read_again(tmp_path: Path) -> None:
    spec = AppSpec.model_validate(
        {
            "name": "shop",
            "argv": ("/usr/bin/node", "/srv/a b.js", "no", "1.10", "~"),
            "cwd": "/srv",
            "env": {"A": "no", "B": "0755", "C": "", "D": "a\nb: c", "E": "1e3", "F": "null", "G": "é"},
            "env_files": (".env",),
            "runtime": "program",
            "declared_port": 3000,
            "ready": {"method": "command", "command": ("curl", "-f", "x y"), "interval_seconds": 0.1},
            "stop": {"grace_seconds": 1.6, "signal": "SIGINT"},
            "restart": {"mode": "on_failure", "stop_exit_codes": (0, 3), "backoff_max_seconds": 90},
            "rollout": {"max_surge": 0, "max_unavailable": 2, "canary": 1, "canary_seconds": 300},
            "route": {"http": "[::1]:80"},
            "identity": {"umask": "007", "resource_limits": {"CORE": {"soft": 0, "hard": -1}}},
            "limits": {"memory_restart_bytes": 300 * 1024**2, "memory_max_bytes": 1000, "cpu_max_cores": 0.5},
            "log": {"max_age_seconds": 7 * 86_400, "json_lines": True},
            "cron_restart": "0 3 * * *",
            "worker_env": {2: {"ROLE": "second"}},
            "counters": {"NODE_APP_INSTANCE": 0},
            "placement": {"labels": {"zone": "a"}},
        }
    )
    for size in (Wanted(3), Wanted(0), Wanted(PerCore()), Wanted(PerCore(2)), Wanted(hosts={"h": 2})):
        text = writer.document({spec.name: writer.app_entry(spec, size)})
        assert read(tmp_path, text)["shop"] == WantedApp(spec, size)
    assert "canary_for: 5m" in text
    assert "memory_restart: 300M" in text
    assert "grace: 1600ms" in text


@settings(deadline=None)
@given(st.floats(0, 86_400, allow_nan=False), st.integers(0, 2**62))
def test_every_duration_and_size_survives_being_written(seconds: float, count: int) -> None:
    spec = AppSpec.model_validate(
        {
            "name": "a",
            "argv": ("x",),
            "cwd": "/",
            "stop": {"grace_seconds": seconds},
            "limits": {"memory_max_bytes": count},
        }
    )
    text = writer.document({"a": writer.app_entry(spec, Wanted())})
    tree = yaml_tree(text, "f")
    assert document.read_tree(tree, Path("/fleet.yaml")).apps[0].spec == spec


def test_the_home_of_who_says_it_is_meant_by_a_tilde(tmp_path: Path) -> None:
    assert read(tmp_path, "apps: {a: {command: x, cwd: ~/web}}")["a"].spec.cwd == os.path.expanduser("~/web")  # noqa: PTH111


def test_the_published_schema_and_pages_are_those_of_the_code() -> None:
    """`make fleet-file-docs` writes them."""
    assert (DOCS / "fleet-file.schema.json").read_text() == schema_text()
    for name in PAGES:
        page = (DOCS / name).read_text()
        assert page_text(name, page) == page


def test_every_field_is_described() -> None:
    """In fleetctl/fleet_file/descriptions.py."""
    assert set(field_names()) == set(DESCRIPTIONS)


def test_the_schema_knows_each_field_and_refuses_others() -> None:
    app = json_schema()["properties"]["apps"]["additionalProperties"]
    assert app["additionalProperties"] is False
    assert app["properties"]["ready"]["additionalProperties"] is False
    assert app["properties"]["rollout"]["properties"]["on_failure"]["enum"] == ["rollback", "pause"]
    for name in field_names():
        part = app
        for word in name.split("."):
            part = part["properties"][word]
        assert part["description"]
