"""A worker that floods: see `tests.bench.host.app.writer`. Standard library only, so that it starts at once."""

import os
import time

lines = int(os.environ["BENCH_LINES"])
with open(os.environ["BENCH_GO"], "rb") as go:  # noqa: PTH123 - pathlib would be most of its start
    go.read()
began = time.monotonic()
rest = b" " + b"x" * 91 + b"\n"
write = os.write
for number in range(1, lines + 1):
    write(1, b"%07d" % number + rest)
seconds = time.monotonic() - began
with open(os.environ["BENCH_DONE"], "w") as done:  # noqa: PTH123
    done.write(f"{seconds}\n")
while True:
    time.sleep(1000)
