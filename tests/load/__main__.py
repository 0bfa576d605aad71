"""`python -m tests.load`: send a constant load until a signal or --seconds, then print what was sent and what failed.

Exits 0 when nothing failed, 1 when something did. With --json, standard output holds one JSON object a line: progress, if asked
for, and last the summary.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from tests.load.client import LoadClient, LoadPlan, Target


def main() -> int:
    arguments = _parser().parse_args()
    idle = min(arguments.idle, arguments.keepalive)
    plan = LoadPlan(
        targets=arguments.url,
        keepalive=arguments.keepalive,
        fresh=arguments.fresh,
        idle=idle,
        rate=arguments.rate,
        post_share=arguments.post_share,
        get_path=arguments.get_path,
        post_path=arguments.post_path,
        fail_over=arguments.fail_over,
        seed=arguments.seed,
    )
    summary = asyncio.run(_run(plan, arguments.seconds, arguments.progress))
    if arguments.json:
        _print_json(summary)
    else:
        _print_text(summary)
    return 1 if summary["failed"] else 0


async def _run(plan: LoadPlan, seconds: float | None, progress_seconds: float | None) -> dict[str, Any]:
    client = LoadClient(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, client.stop)
    if seconds is not None:
        loop.call_later(seconds, client.stop)
    reporter = asyncio.create_task(_report(client, progress_seconds)) if progress_seconds else None
    try:
        await client.run()
    finally:
        if reporter is not None:
            reporter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporter
    return client.summary()


async def _report(client: LoadClient, every_seconds: float) -> None:
    while True:
        await asyncio.sleep(every_seconds)
        _print_json({"progress": {"sent": client.tally.sent.total(), "failed": client.tally.failed.total()}})


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def _print_text(summary: dict[str, Any]) -> None:
    latency = summary["latency_ms"]
    print(
        f"sent {summary['sent']} requests in {summary['seconds']:.1f} s ({summary['requests_per_second']}/s), "
        f"failed {summary['failed']}"
    )
    print(f"latency ms: median {latency['p50']}, 99 % {latency['p99']}, longest {latency['max']}")
    for failure in summary["details"]:
        print(f"  {failure['kind']}: {failure['method']} on a {failure['connection']} connection: {failure['detail']}")


def _target(text: str) -> Target:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: write http://ADDRESS:PORT")
    return Target(parts.hostname, parts.port or 80)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not greater than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="A constant HTTP load.")
    parser.add_argument("--url", type=_target, action="append", required=True, help="may be given several times")
    parser.add_argument("--keepalive", type=_count, default=20, help="kept-alive connections")
    parser.add_argument("--fresh", type=_count, default=20, help="clients with a new connection for each request")
    parser.add_argument(
        "--idle", type=_count, default=6, help="kept-alive connections that wait 4-6 s between requests"
    )
    parser.add_argument("--rate", type=_positive, default=200.0, help="at most so many requests a second in all")
    parser.add_argument("--post-share", type=float, default=0.3, help="share of requests that are POST, 0-1")
    parser.add_argument("--get-path", default="/")
    parser.add_argument("--post-path", default="/echo")
    parser.add_argument("--fail-over", action="store_true", help="try the next URL when a connect is refused")
    parser.add_argument("--seconds", type=_positive, help="end after so long; else at SIGINT or SIGTERM")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--progress", type=_positive, metavar="SECONDS", help="print sent and failed so often")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
