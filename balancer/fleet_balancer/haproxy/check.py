"""What HAProxy would say to a route, asked before anything depends on it: `haproxy -c` on a configuration of that pool alone."""

import asyncio
import contextlib
import logging
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path

from fleet_balancer.certificates.pem import self_signed
from fleet_balancer.certificates.store import Selection
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.complaints import complaint
from fleet_balancer.haproxy.config import CERTIFICATES, render, render_certificates, render_map
from fleet_balancer.haproxy.layout import Layout, PoolLayout, frontend
from fleet_balancer.haproxy.pages import PAGES, page_files

_log = logging.getLogger(__name__)
_SECONDS = 10.0
_STDOUT = 1


async def refusal(binary: Binary, folder: Path, pool: PoolLayout) -> str:
    """Why HAProxy would not start with `pool`, in its words; empty: it would. `folder` is for files, which are removed.

    Nothing is listened on. What cannot be asked is no refusal. Raises OSError.
    """
    with tempfile.TemporaryDirectory(prefix="check-", dir=folder) as name, socket.socket() as unused:
        # To parse `fd@N` it asks what address that has.
        unused.bind(("127.0.0.1", 0))
        layout = Layout(
            socket=Path(name) / "sock",
            map="map",
            certificates="list",
            threads=1,
            max_connections=100,
            listeners=dict.fromkeys(pool.route.addresses, unused.fileno()),
            pools=(pool,),
            access_log=_STDOUT,
        )
        configuration = render(layout)
        path = await asyncio.to_thread(_write, Path(name), configuration, pool)
        output = await words(binary, path, (unused.fileno(),))
    if not output:
        return ""
    frontends = tuple(frontend(entrance) for entrance in pool.route.entrances)
    return complaint(output, configuration, {pool.name: frontends}).words


def _write(folder: Path, configuration: str, pool: PoolLayout) -> Path:
    certificates = Selection((self_signed(pool.name),))
    (folder / CERTIFICATES).mkdir()
    (folder / PAGES).mkdir()
    contents = {
        "haproxy.cfg": configuration.encode(),
        "map": render_map((pool,)).encode(),
        "list": render_certificates(certificates).encode(),
        **{f"{CERTIFICATES}/{one.digest}.pem": one.pem for one in certificates.certificates},
        **{f"{PAGES}/{name}": page for name, page in page_files([pool.route.policy]).items()},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder / "haproxy.cfg"


async def words(binary: Binary, path: Path, descriptors: Collection[int]) -> str:
    """All that HAProxy says of the configuration `path`, where it would not start with it; "" where it would, or cannot be asked.

    `descriptors` are those it names.
    """
    process = await asyncio.create_subprocess_exec(
        binary.path,
        *("-c", "-f", path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=tuple(descriptors),
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        _log.warning("HAProxy did not check a configuration within %g s", _SECONDS)
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return (output.decode(errors="replace").strip() or "it said nothing") if process.returncode else ""
