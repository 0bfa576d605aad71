"""Writes `fleetctl.Client` and its handles from the asynchronous ones: `make sync-client`.

Each public method becomes one that runs its namesake in the portal: same name, parameters, and documentation; a coroutine's
result is returned, an asynchronous generator becomes a generator. A test fails when the two differ.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "cli" / "fleetctl" / "client"
WRITTEN = CLIENT / "sync.py"

_TWINS = {"AsyncRollout": "Rollout", "AsyncDrain": "Drain"}
_BATCHED = {"logs": "_log_batches"}
"""Generator → the one that has the same in batches, which takes fewer ways between threads."""
_PARTS = ("looking", "changing", "machines", "keeping", "files")

_HEAD = '''"""`Client`: the calls of the command line, for programs without an event loop.

Written by scripts/sync_client.py from the asynchronous calls: `make sync-client`.
"""

'''
_CLIENT_DOC = '''    """A fleet. Use it as a context manager, from any number of threads; it connects when the first call is made.

    Its calls run in an event loop in a thread of its own, which `close` ends; so it works beside a running loop, too. Calls find
    the controller that leads, ask for another while none does for some seconds, and have a deadline of `call_timeout` seconds.
    They raise FleetError: NotFound, Refused, Unreachable, UsageError, RolloutFailed, RolloutTimeout, …
    """
'''


def written() -> str:
    """The whole module, formatted."""
    trees = {name: ast.parse((CLIENT / f"{name}.py").read_text()) for name in ("handles", "calls", *_PARTS)}
    handles = [_handle(_class(trees["handles"], twin)) for twin in _TWINS]
    client = _client(_class(trees["calls"], "AsyncClient"), [_only_class(trees[part]) for part in _PARTS])
    return _formatted("\n".join([_HEAD, *_imports(trees.values()), *handles, client]))


def _imports(trees: Iterable[ast.Module]) -> Iterator[str]:
    """Everything the originals import; what is not needed goes when the module is formatted."""
    yield "from collections.abc import Generator"
    yield "from fleetctl.client.calls import CALL_SECONDS, AsyncClient"
    yield "from fleetctl.client.handles import AsyncDrain, AsyncRollout"
    yield "from fleetctl.client.portal import Portal, PortalOwner"
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield ast.unparse(node)


def _handle(original: ast.ClassDef) -> str:
    twin = _TWINS[original.name]
    body = [
        f"class {twin}:",
        _indented(_documentation(original)),
        f"    def __init__(self, portal: Portal, wrapped: {original.name}) -> None:",
        "        self._portal = portal",
        "        self._wrapped = wrapped",
        "    def __repr__(self) -> str:",
        f'        return repr(self._wrapped).replace("{original.name}", type(self).__name__)',
        *_methods(original),
    ]
    return "\n".join(body)


def _client(original: ast.ClassDef, parts: Iterable[ast.ClassDef]) -> str:
    made = next(node for node in original.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    named = next(node for node in original.body if isinstance(node, ast.FunctionDef) and node.name == "from_context")
    body = [
        "class Client(PortalOwner):",
        _CLIENT_DOC,
        f"    def __init__({ast.unparse(made.args)}) -> None:",
        _indented(_documentation(made), 8),
        f"        self._wrapped = AsyncClient({_passed_on(made.args)})",
        "        super().__init__(self._wrapped.aclose)",
        _indented(ast.unparse(named)),
    ]
    for part in parts:
        body += _methods(part)
    return "\n".join(body)


def _methods(original: ast.ClassDef) -> Iterator[str]:
    for node in original.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if node.returns is None:
            raise SystemExit(f"{original.name}.{node.name} says not what it returns")
        if any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list):
            yield "    @property"
            yield f"    def {node.name}(self) -> {ast.unparse(node.returns)}:"
            if ast.get_docstring(node):
                yield _indented(_documentation(node), 8)
            yield f"        return self._wrapped.{node.name}"
        else:
            yield from _method(node, ast.unparse(node.returns))


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef, returned: str) -> Iterator[str]:
    generates = returned.startswith("AsyncGenerator[")
    called = f"self._wrapped.{node.name}({_passed_on(node.args)})"
    if generates:
        returned = returned.removeprefix("Async").replace(", None]", ", None, None]")
        way = "iterate_batches" if node.name in _BATCHED else "iterate"
        called = called.replace(node.name, _BATCHED.get(node.name, node.name), 1)
        outcome = f"self._portal.{way}({called})"
    else:
        twin = _TWINS.get(returned, "")
        outcome = f"self._portal.call({called})"
        if twin:
            returned, outcome = twin, f"{twin}(self._portal, {outcome})"
    yield f"    def {node.name}({ast.unparse(node.args)}) -> {returned}:"
    yield _indented(_documentation(node), 8)
    yield f"        {outcome}" if returned == "None" else f"        return {outcome}"


def _passed_on(arguments: ast.arguments) -> str:
    words = [argument.arg for argument in arguments.args if argument.arg != "self"]
    words += [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        words.append(f"**{arguments.kwarg.arg}")
    return ", ".join(words)


def _documentation(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    text = ast.get_docstring(node)
    if not text:
        raise SystemExit(f"{node.name} is not documented")
    return f'"""{text}"""' if "\n" not in text else f'"""{text}\n"""'


def _indented(text: str, by: int = 4) -> str:
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _only_class(tree: ast.Module) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))


def _formatted(code: str) -> str:
    ruff = (sys.executable, "-m", "ruff")
    for command in (("check", "--quiet", "--select", "F401,F811,I", "--fix"), ("format", "--quiet")):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", str(WRITTEN), "-"],
            input=code,
            text=True,
            capture_output=True,
            cwd=ROOT,
        )
        if done.returncode:
            raise SystemExit(f"ruff {command[0]}: {done.stdout}{done.stderr}")
        code = done.stdout
    return code


if __name__ == "__main__":
    WRITTEN.write_text(written())
