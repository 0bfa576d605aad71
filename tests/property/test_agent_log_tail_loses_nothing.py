"""A log that is written, rotated and read in any order is read whole, once, in order."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet_agent.log_compression import compress_folder
from fleet_agent.log_tail import LogTail

pieces = st.binary(max_size=40).map(lambda data: data.replace(b"\r", b""))
steps = st.lists(st.one_of(pieces, st.sampled_from(["rotate", "read", "compress", "resume"])), max_size=40)
"""The last: another reader goes on where this one is."""


def rotate(path: Path) -> None:
    if not path.exists():
        return
    for number in range(40, 0, -1):
        for suffix in ("", ".gz"):
            source = path.with_name(f"{path.name}.{number}{suffix}")
            if source.exists():
                source.rename(path.with_name(f"{path.name}.{number + 1}{suffix}"))
    path.rename(path.with_name(f"{path.name}.1"))


def compress(path: Path) -> None:
    compress_folder(path.parent, lambda: False)
    # Files of the same nanosecond and inode exist only where a test makes them in no time.
    old = [name for name in path.parent.iterdir() if name != path]
    assert all(name.suffix == ".gz" for name in old)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def drain(tail: LogTail) -> list[bytes]:
    lines: list[bytes] = []
    while read := tail.read():
        lines.extend(read)
    return lines


@settings(deadline=None)
@example(before=[b"x", "rotate", b"x"], lines=1, after=[])
@example(before=[b"1\n", "rotate", b"2\n", "rotate", b"3\n"], lines=1, after=["rotate", "rotate", "compress", b"4\n"])
@example(before=[b"x", "rotate", "compress", b""], lines=0, after=["resume"])
@given(before=steps, lines=st.integers(0, 12), after=steps)
def test_the_last_lines_then_all_that_follows(before: list[bytes | str], lines: int, after: list[bytes | str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.out.log"
        written = b""
        for step in before:
            if isinstance(step, bytes):
                append(path, step)
                written += step
            elif step == "rotate":
                rotate(path)
            elif step == "compress":
                compress(path)
        already = written.split(b"\n")
        unfinished = already.pop()
        counted = [*already, unfinished] if unfinished else already
        # 0 lines: from the end on, in the middle of a line if need be.
        expected_start = counted[max(0, len(counted) - lines) :] if lines else []
        tail = LogTail(path)
        tail.start(lines)
        got: list[bytes] = []
        for step in after:
            if isinstance(step, bytes):
                append(path, step)
                written += step
            elif step == "rotate":
                rotate(path)
            elif step == "compress":
                compress(path)
            elif step == "resume":
                place = tail.place
                tail.close()
                tail = LogTail(path)
                tail.start_at(place)
            else:
                got.extend(drain(tail))
        got.extend(drain(tail))
        got.extend(tail.unfinished())
        tail.close()
        prefix = b"".join(line + b"\n" for line in already) + unfinished
        start = b"\n".join(expected_start)
        if expected_start and not unfinished:
            start += b"\n"
        text = start + written[len(prefix) :]
        expected = text.split(b"\n")
        if not expected[-1]:
            expected.pop()
        assert got == expected
