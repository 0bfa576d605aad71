"""The Node preload under real Node: which listen() goes to the assigned port, and what stays as it was."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fleet_agent
from tests.integration.node_versions import VERSIONS, node_folder
from tests.ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")
PRELOAD = Path(fleet_agent.__file__).parent / "node" / "preload.js"
DEADLINE_SECONDS = 20
Start = Callable[..., "Program"]


class Program:
    """A program whose stdout is JSON lines."""

    def __init__(self, argv: list[str], folder: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            argv, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def says(self) -> object:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # npm prints its own lines
                return json.loads(line)
        raise AssertionError(f"ended with {self.process.wait()} and said nothing")

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Runner:
    """Starts programs in one folder as a worker of the port `assigned`, with the Node that lies in `node`."""

    def __init__(self, folder: Path, node: Path) -> None:
        self.folder = folder
        self._path = f"{node}:{os.environ['PATH']}"
        self.assigned = free_port()
        self.other = free_port()
        self._programs: list[Program] = []

    def start(self, source: str, *argv: str, name: str = "app.js", **env: str) -> Program:
        (self.folder / name).write_text(source.replace("OTHER", str(self.other)))
        fleet = {"FLEET_PORT": str(self.assigned), "FLEET_ADDRESS": "127.0.0.1", "PORT": str(self.assigned)}
        options = {"NODE_OPTIONS": f'--require "{PRELOAD}"'}
        base = {"PATH": self._path, "HOME": os.environ.get("HOME", str(self.folder))}
        program = Program(list(argv) or ["node", name], self.folder, {**base, **options, **fleet, **env})
        self._programs.append(program)
        return program

    def end(self) -> None:
        for program in self._programs:
            program.end()

    def answers(self, port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read().decode())


@pytest.fixture(params=VERSIONS)
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Runner]:
    runner = Runner(tmp_path, node_folder(request.param))
    try:
        yield runner
    finally:
        runner.end()


SAY_ADDRESS = "() => console.log(JSON.stringify(server.address()))"


@pytest.mark.parametrize(
    "arguments",
    [
        "OTHER, say",
        "'OTHER', say",
        "OTHER, '0.0.0.0', say",
        "OTHER, '::', say",
        "OTHER, 511, say",
        "OTHER, 'localhost', 511, say",
        "OTHER, undefined, say",
        "{ port: OTHER }, say",
        "{ port: 'OTHER', host: '::', ipv6Only: true, backlog: 10 }, say",
        "process.env.PORT, say",
    ],
)
def test_the_first_listen_goes_to_the_assigned_port_however_it_is_written(node: Runner, arguments: str) -> None:
    program = node.start(
        f"""
        const server = require('http').createServer((q, r) => r.end('hello'));
        const say = {SAY_ADDRESS};
        console.assert(server.listen({arguments}) === server);
        """
    )
    assert program.says() == {"address": "127.0.0.1", "family": "IPv4", "port": node.assigned}
    assert node.answers(node.assigned) == "hello"


def test_an_es_module_is_served_alike_also_after_chdir(node: Runner) -> None:
    program = node.start(
        f"""
        import {{ createServer }} from 'node:http';
        process.chdir('/');
        const server = createServer((q, r) => r.end('module'));
        server.listen(OTHER, {SAY_ADDRESS});
        """,
        name="app.mjs",
    )
    assert program.says() == {"address": "127.0.0.1", "family": "IPv4", "port": node.assigned}
    assert node.answers(node.assigned) == "module"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm on PATH")
def test_npm_start_reaches_the_program_below_it_even_with_a_port_of_its_own(node: Runner) -> None:
    (node.folder / "package.json").write_text('{"name": "app", "scripts": {"start": "PORT=3999 node app.js"}}')
    program = node.start(
        f"""
        const server = require('http').createServer((q, r) => r.end('npm'));
        server.listen(process.env.PORT, {SAY_ADDRESS});
        """,
        "npm",
        "start",
        npm_config_update_notifier="false",
    )
    assert program.says() == {"address": "127.0.0.1", "family": "IPv4", "port": node.assigned}


def test_later_listens_unix_sockets_and_port_0_are_left_alone(node: Runner) -> None:
    program = node.start(
        """
        const net = require('net');
        const ports = {};
        const open = (name, ...where) => new Promise((done) => {
          const server = net.createServer().listen(...where, () => { ports[name] = server.address(); done(); });
        });
        (async () => {
          await open('any', 0, '127.0.0.1');
          await open('unix', 'app.sock');
          await open('unixOption', { path: 'option.sock' });
          const both = [open('first', 3000), open('metrics', OTHER, '127.0.0.1')];
          await Promise.all(both);
          console.log(JSON.stringify(ports));
        })();
        """
    )
    ports = program.says()
    assert isinstance(ports, dict)
    assert ports["unix"] == "app.sock"
    assert ports["unixOption"] == "option.sock"
    assert ports["first"]["port"] == node.assigned
    assert ports["metrics"]["port"] == node.other
    assert ports["any"]["port"] not in (node.assigned, 0)


def test_a_declared_port_is_the_one_mapped_even_when_another_listens_first(node: Runner) -> None:
    program = node.start(
        """
        const http = require('http');
        const metrics = http.createServer().listen(OTHER, '127.0.0.1', () => {
          const server = http.createServer().listen(3000, () =>
            console.log(JSON.stringify([metrics.address().port, server.address().port])));
        });
        """,
        FLEET_DECLARED_PORT="3000",
    )
    assert program.says() == [node.other, node.assigned]


def test_child_processes_keep_the_ports_they_ask_for_once_the_program_listens(node: Runner) -> None:
    (node.folder / "child.js").write_text(
        f"""
        const server = require('net').createServer();
        server.listen({node.other}, '127.0.0.1', () => process.send(server.address().port));
        """
    )
    program = node.start(
        """
        const server = require('http').createServer().listen(3000, () => {
          const child = require('child_process').fork('child.js');
          child.on('message', (port) => console.log(JSON.stringify([server.address().port, port])));
        });
        """
    )
    assert program.says() == [node.assigned, node.other]


def test_the_workers_of_a_node_cluster_share_the_assigned_port(node: Runner) -> None:
    program = node.start(
        """
        const cluster = require('cluster');
        if (cluster.isPrimary) {
          let up = 0;
          const ports = [];
          for (let i = 0; i < 2; i++) {
            cluster.fork().on('listening', (address) => {
              ports.push(address.port);
              if (ports.length === 2) console.log(JSON.stringify(ports));
            });
          }
          process.on('SIGTERM', () => process.exit());
        } else {
          require('http').createServer((q, r) => r.end('cluster')).listen(3000);
        }
        """
    )
    assert program.says() == [node.assigned, node.assigned]
    assert node.answers(node.assigned) == "cluster"


def test_a_server_that_was_closed_may_listen_again(node: Runner) -> None:
    program = node.start(
        """
        const http = require('http');
        const first = http.createServer().listen(3000, () => first.close(() => {
          const second = http.createServer().listen(3000, () => console.log(JSON.stringify(second.address().port)));
        }));
        """
    )
    assert program.says() == node.assigned


def test_a_port_that_is_taken_still_fails_with_the_error_the_program_knows(node: Runner) -> None:
    with socket.create_server(("127.0.0.1", node.assigned)):
        program = node.start(
            """
            const server = require('net').createServer();
            server.on('error', (error) => console.log(JSON.stringify([error.code, error.port])));
            server.listen(3000);
            """,
            FLEET_DECLARED_PORT="3000",
        )
        assert program.says() == ["EADDRINUSE", node.assigned]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", [75_000, 76_000]),
        ("", "server.keepAliveTimeout = 5000;", [75_000, 76_000]),
        ("server.keepAliveTimeout = 120000; server.headersTimeout = 121000;", "", [120_000, 121_000]),
        ("server.keepAliveTimeout = 0;", "", [0, 76_000]),
        ("", "server.keepAliveTimeout = 90000; server.headersTimeout = 95000;", [90_000, 95_000]),
    ],
)
def test_keep_alive_outlives_the_balancers_pool_and_is_never_shortened(
    node: Runner, before: str, after: str, expected: list[int]
) -> None:
    program = node.start(
        f"""
        const server = require('http').createServer();
        {before}
        server.listen(3000);
        {after}
        server.on('listening', () => setImmediate(() =>
          console.log(JSON.stringify([server.keepAliveTimeout, server.headersTimeout]))));
        """
    )
    assert program.says() == expected


def test_an_https_server_is_treated_alike(node: Runner) -> None:
    program = node.start(
        """
        const server = require('https').createServer();
        server.listen(3443, () => console.log(JSON.stringify([server.address().port, server.keepAliveTimeout])));
        """
    )
    assert program.says() == [node.assigned, 75_000]


def test_without_the_fleets_variables_it_does_nothing(node: Runner) -> None:
    program = node.start(
        """
        const server = require('http').createServer();
        server.listen(OTHER, '127.0.0.1', () =>
          console.log(JSON.stringify([server.address().port, server.keepAliveTimeout])));
        """,
        FLEET_PORT="",
    )
    assert program.says() == [node.other, 5_000]


def test_it_installs_no_signal_handler(node: Runner) -> None:
    program = node.start("require('http').createServer().listen(3000, () => console.log('1'));")
    assert program.says() == 1
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(DEADLINE_SECONDS) == -signal.SIGTERM


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm on PATH")
def test_an_unmodified_express_server_with_a_hard_coded_port_runs(node: Runner, express_modules: Path) -> None:
    (node.folder / "node_modules").symlink_to(express_modules)
    program = node.start(
        f"""
        const app = require('express')();
        app.get('/', (request, response) => response.send('express'));
        const server = app.listen(3000, {SAY_ADDRESS});
        """
    )
    assert program.says() == {"address": "127.0.0.1", "family": "IPv4", "port": node.assigned}
    assert node.answers(node.assigned) == "express"


@pytest.fixture(scope="module")
def express_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """node_modules with express, installed from npm; skips where npm cannot."""
    folder = tmp_path_factory.mktemp("express")
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder), "express@4"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm install express took longer than 90 s")
    if done.returncode != 0:
        pytest.skip(f"npm install express failed: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"
