"""The program a worker's process runs while it waits: until its supervisor has recorded it, and says what it is to become.

It is 326 bytes of machine code, as a process made by fork(2) of the supervisor pays twice: each page that either side touches is
copied, and execve(2) has all the rest to take apart (docs/adr/0010). It lies in memory (memfd_create(2), sealed), since /run may
be mounted noexec. All it knows is to wait, and then to make the system calls of a list:

```
x86-64                                             in C
start:
    push 45; pop rax; push CHANNEL; pop rdi
    mov esi, IMAGE; push 1; pop rdx
    push 2; pop r10; syscall                       if (recv(CHANNEL, IMAGE, 1, MSG_PEEK) != 1)
    dec eax; jne exit                                  exit(127);          // no supervisor, no worker
    push ORDER; pop rdi; mov edx, IMAGE_BYTES
    syscall                                        read(ORDER, IMAGE, IMAGE_BYTES);
    mov ebx, esi                                   struct call *call = IMAGE;
next:
    mov rax, [rbx]; test rax, rax; js start        for (;;) {   if (call->number < 0) goto start;
    mov rdi, [rbx + 8]
    mov rsi, [rbx + 16]; mov rdx, [rbx + 24]
    mov r10, [rbx + 32]; add rbx, 56; syscall          long result = syscall(call->number, …); call++;
    cmp rax, -4095; jb next                            if (!is_error(result)) continue;
    mov rcx, [rbx - 16]; mov [rcx], eax                *call[-1].failure = result;
    mov rbx, [rbx - 8]; jmp next                       call = call[-1].instead;
exit:                                              }
    push 60; pop rax; push 127; pop rdi; syscall
```

Where there is no such code for a machine, or no program may run from memory, `stub_program` does the same, and a start takes
longer by the start of a Python.
"""

import errno
import fcntl
import marshal
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from fleet_agent.supervisor import stub_program
from fleet_agent.supervisor.steps import Argument, Step
from fleet_agent.supervisor.stub_program import CHANNEL, FIRST_INHERITED, ORDER, pack_failures

_TEXT = 0x400000
IMAGE = 0x10000000
_IMAGE_BYTES = 4 * 1024 * 1024
"""Of an order; a launch has 1 MiB of JSON at the most. Memory is only taken by what is written there."""
_CODE = bytes.fromhex(
    "6a2d 58 6a13 5f be00000010 6a01 5a 6a02 415a 0f05 ffc8 753e 6a14 5f ba00004000 0f05 89f3"
    "488b03 4885c0 78d4 488b7b08 488b7310 488b5318 4c8b5320 4883c338 0f05 483d01f0ffff 72da"
    "488b4bf0 8901 488b5bf8 ebce 6a3c 58 6a7f 5f 0f05"
)
_ORDER_BYTES = _IMAGE_BYTES - 64
"""What an order may take of them."""
IGNORED = IMAGE + _IMAGE_BYTES - 8
"""Where a failure is written that nobody asks about."""
_ZEROS = IGNORED - 8
_MACHINE = "x86_64"
NUMBERS = {
    "write": 1,
    "close": 3,
    "receive": 47,
    "dup2": 33,
    "clone": 56,
    "execve": 59,
    "fcntl": 72,
    "chdir": 80,
    "fchown": 93,
    "umask": 95,
    "setuid": 105,
    "setgid": 106,
    "setsid": 112,
    "setgroups": 116,
    "setpriority": 141,
    "sched_setscheduler": 144,
    "exit_group": 231,
    "open": 257,
    "ppoll": 271,
    "setrlimit": 302,
    "close_range": 436,
}
"""arch/x86/entry/syscalls/syscall_64.tbl; recvmsg(2), openat(2) and prlimit64(2) are behind three of the names."""
_AT_FDCWD = -100
CALL = struct.Struct("=7q")
_UNUSED = (0, 0, 0, 0)
RESTART = -1
"""Instead of a system call's number: begin as the program does."""
_LIMITS = struct.Struct("=qq")
_LAST_DESCRIPTOR = 2**32 - 1
_NOT_STARTED = 127
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_EHDR = struct.Struct("=16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("=IIQQQQQQ")


@dataclass(frozen=True)
class Stub:
    """A program that waits, and how it is told what to do."""

    path: str
    argv: tuple[str, ...]
    pack: Callable[[list[Step]], bytes]
    """Makes what is written to ORDER. Raises ValueError where it is too long."""
    descriptor: int = -1
    """Of the program; -1: none."""
    breeds: bool = False
    """It can do what `litter` asks of it."""
    patient: bool = False
    """It may wait as a batch process (sched(7)), as its order makes it an ordinary one: it then never takes the processor of the
    one that wakes it, and a supervisor that starts many is not stopped at each."""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def native_stub() -> Stub:
    """Raises OSError where there is none for this machine, or it does not let it run."""
    if os.uname().machine != _MACHINE or sys.byteorder != "little":
        raise OSError(errno.ENOEXEC, f"no code for {os.uname().machine}")
    with ExitStack() as owned:
        made = os.memfd_create("fleet-start", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        owned.callback(os.close, made)
        os.write(made, _program())
        fcntl.fcntl(
            made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        )
        # Above all numbers that a waiting process has a use for; read-only, as what is open for writing is not executed.
        descriptor = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
        owned.callback(os.close, descriptor)
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ORDER + 1)
    # Where an administrator chose another class for the supervisor, it is the workers' as well.
    patient = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
    stub = Stub(
        f"/proc/self/fd/{high}", ("fleet-start",), partial(_pack, patient=patient), high, breeds=True, patient=patient
    )
    try:
        _try(stub)
    except OSError:
        os.close(high)
        raise
    return stub


def python_stub() -> Stub:
    argv = (sys.executable, "-I", "-S", stub_program.__file__)
    return Stub(sys.executable, argv, lambda steps: marshal.dumps([tuple(step) for step in steps]))


def read_failure(report: bytes) -> str:
    """What a process said of the steps that failed: of many folders without the program, the first that has one counts."""
    (count,) = struct.unpack_from("=I", report)
    numbers = struct.unpack_from(f"={count}i", report, 4)
    said = report[4 + 4 * count :].decode(errors="replace").split("\0")
    failed = [(abs(number), text) for number, text in zip(numbers, said, strict=False) if number]
    number, text = next(
        (found for found in failed if found[0] not in _NOT_FOUND), failed[0] if failed else (0, "start: %s")
    )
    return text % os.strerror(number)


def _program() -> bytes:
    """An executable of two segments (elf(5)): the code, and the memory that an order is read into."""
    headers = _EHDR.size + 3 * _PHDR.size
    length = headers + len(_CODE)
    identity = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
    segments = [
        (1, 5, 0, _TEXT, _TEXT, length, length, 0x1000),  # PT_LOAD, to be read and executed
        (1, 6, 0, IMAGE, IMAGE, 0, _IMAGE_BYTES, 0x1000),  # PT_LOAD, to be read and written
        (0x6474E551, 6, 0, 0, 0, 0, 0, 16),  # PT_GNU_STACK, not to be executed
    ]
    header = _EHDR.pack(
        identity, 2, 62, 1, _TEXT + headers, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, len(segments), 0, 0, 0
    )
    return header + b"".join(_PHDR.pack(*segment) for segment in segments) + _CODE


def _try(stub: Stub) -> None:
    """Does it run here? With nobody at its channel it ends at once. Raises OSError."""
    pid = os.posix_spawn(
        stub.path, stub.argv, {}, file_actions=[(os.POSIX_SPAWN_OPEN, CHANNEL, os.devnull, os.O_RDONLY, 0)]
    )
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != _NOT_STARTED:
        raise OSError(errno.ENOEXEC, "it does not run")


class _Image:
    """An order in the making. Its calls come first, then what they point to."""

    def __init__(self, calls: int) -> None:
        self._data = bytearray()
        self._base = IMAGE + calls * CALL.size
        self._arrays: dict[int, int] = {}

    def place(self, data: bytes | bytearray) -> int:
        """The address it will have."""
        self._data += bytes(-len(self._data) % 8)
        address = self._base + len(self._data)
        self._data += data
        return address

    def value(self, argument: Argument) -> int:
        """Itself, or the address of a text, or of an array of texts that ends with NULL. One that comes again is placed once."""
        if isinstance(argument, int):
            return argument
        if isinstance(argument, bytes):
            return self.place(argument + b"\0")
        known = self._arrays.get(id(argument))
        if known is None:
            known = self._arrays[id(argument)] = self.place(self._array(argument))
        return known

    def _array(self, texts: Sequence[bytes]) -> bytes:
        address = self.place(b"")
        addresses = []
        for text in texts:
            addresses.append(address)
            address += len(text) + 1
        if texts:
            self._data += b"\0".join(texts) + b"\0"
        return struct.pack(f"={len(addresses) + 1}Q", *addresses, 0)

    def with_calls(self, calls: bytes) -> bytes:
        return calls + self._data


def _prelude(*, patient: bool) -> bytes:
    """What comes before all steps. Where one of its calls fails, the next is made."""
    calls: list[tuple[str, int, int, int]] = [
        ("fcntl", CHANNEL, fcntl.F_SETFD, fcntl.FD_CLOEXEC),
        ("close", ORDER, 0, 0),
        # Linux 5.9; before, what Python made is closed at execve anyway.
        ("close_range", FIRST_INHERITED, CHANNEL - 1, 0),
        ("close_range", ORDER, _LAST_DESCRIPTOR, 0),
    ]
    if patient:
        calls.insert(0, ("sched_setscheduler", 0, os.SCHED_OTHER, _ZEROS))  # struct sched_param: 0
    packed = bytearray()
    for name, *arguments in calls:
        packed += CALL.pack(NUMBERS[name], *arguments, 0, IGNORED, IMAGE + len(packed) + CALL.size)
    return bytes(packed)


def _pack(steps: list[Step], *, patient: bool) -> bytes:
    """`patient`: it waits as a batch process, and first of all becomes an ordinary one."""
    prelude = _PRELUDES[patient]
    before = len(prelude) // CALL.size
    report_index = before + len(steps)
    image = _Image(report_index + 2)
    message = pack_failures([(0, step.failed) for step in steps])
    failures = image.place(message)
    report = IMAGE + report_index * CALL.size
    numbers: list[int] = []
    for index, (name, arguments, _) in enumerate(steps):
        instead = IMAGE + (before + index + 1) * CALL.size if name == "execve" else report
        values = _values(name, arguments, image)
        numbers += (NUMBERS[name], *values, *_UNUSED[len(values) :], failures + 4 + 4 * index, instead)
    numbers += (NUMBERS["write"], CHANNEL, failures, len(message), 0, failures, report + CALL.size)
    numbers += (NUMBERS["exit_group"], _NOT_STARTED, 0, 0, 0, failures, report)
    packed = image.with_calls(prelude + struct.pack(f"={len(numbers)}q", *numbers))
    if len(packed) > _ORDER_BYTES:
        raise ValueError("its arguments and environment are too long")
    return packed


def _values(name: str, arguments: tuple[Any, ...], image: _Image) -> tuple[int, ...]:
    """The arguments as the kernel takes them."""
    match name:
        case "open":
            path, mode = arguments
            return _AT_FDCWD, image.value(path), mode
        case "execve":
            path, argv, env = arguments
            return image.value(path), image.value(argv), image.value(env)
        case "write":
            descriptor, data = arguments
            return descriptor, image.value(data), len(data)
        case "fchown":
            return (*arguments, -1)
        case "receive":
            (count,) = arguments
            space = socket.CMSG_SPACE(count * 4)
            byte = image.place(bytes(1))
            vector, control = image.place(struct.pack("=QQ", byte, 1)), image.place(bytes(space))
            return CHANNEL, image.place(struct.pack("=QQQQQQQ", 0, 0, vector, 1, control, space, 0)), 0
        case "setgroups":
            (groups,) = arguments
            return len(groups), image.place(struct.pack(f"={len(groups)}I", *groups))
        case "setrlimit":
            number, soft, hard = arguments
            return 0, number, image.place(_LIMITS.pack(soft, hard))
        case _:
            return tuple(image.value(argument) for argument in arguments)


_PRELUDES = (_prelude(patient=False), _prelude(patient=True))
