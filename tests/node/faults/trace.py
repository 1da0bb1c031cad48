"""What a process asked of the kernel, in order: reads what strace wrote down. Knows nothing of disks.

strace stops a thread when a call begins and when it ends, and writes it down before it lets the thread go on. So where
one thing waits for another (a reply for an fsync, in whatever threads), the order of the lines is that of the things.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# All that changes a file, a name or an open descriptor, and what is sent. Calls of which the reader knows nothing fail
# it, so that a change of RocksDB's or Python's ways is not overlooked.
CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,"
    "fallocate,fsync,fdatasync,sync,syncfs,msync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,"
    "mkdirat,rmdir,link,linkat,symlink,symlinkat,mmap,copy_file_range,sendfile,splice,io_uring_setup,accept,accept4,"
    "getpeername,sendto,sendmsg"
)
NEVER = 2**62  # when a call ends that hadn't ended when its process was killed

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_UNFINISHED = " <unfinished ...>"
_RETURN = re.compile(r"(.*)\) += (-?\d+|\?|0x[0-9a-f]+).*?")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def strace(to: Path, *options: str) -> Sequence[str]:
    """The command before another one that writes down what that asks."""
    calls = ",".join(f"?{call}" for call in CALLS.split(","))  # ?: a machine may not have one of them
    return ("strace", "-f", "--seccomp-bpf", "-qq", "-xx", "-s", "999999999", "-e", f"trace={calls}", *options,
            "-o", os.fspath(to))  # fmt: skip


@dataclass
class Call:
    """One call. ``begin`` and ``end`` count beginnings and ends of calls over the whole trace."""

    name: str
    arguments: str
    begin: int
    end: int = NEVER
    result: int = -1  # below 0: it failed, or never ended

    def texts(self) -> list[bytes]:
        """The strings among its arguments."""
        found = _TEXT.findall(self.arguments)
        assert not any(cut for _, cut in found), f"strace cut short {self.arguments[:200]}"
        return [bytes.fromhex(text.replace("\\x", "")) for text, _ in found]

    def word(self, place: int) -> str:
        """An argument in front of all strings."""
        return self.arguments.split(",", place + 1)[place].strip()

    def last(self, place: int = 1) -> str:
        """An argument behind all strings, counted from the last."""
        return self.arguments.rsplit(",", place)[-place].strip()

    def take(self, text: str) -> int | None:
        """Its arguments, from what stands behind its name when it has ended; its result, None if it was killed."""
        done = _RETURN.fullmatch(text)
        assert done, f"{self.name}({text[:200]}"
        self.arguments = done[1]
        return None if done[2] == "?" else int(done[2], 0)


def calls(file: Path, start: int = 0) -> Iterator[Call]:
    """Each call twice, where it begins and where it ends, in order; numbered from ``start``. One may not end."""
    running: dict[str, Call] = {}
    moment = start
    with file.open(encoding="ascii") as lines:
        for line in lines:
            found = _LINE.match(line)
            assert found, line[:200]
            thread, rest = found.groups()
            if rest.startswith(("---", "+++")):
                continue
            moment += 2
            if resumed := _RESUMED.match(rest):
                call = running.pop(thread)
                assert call.name == resumed[1], line[:200]
                result = call.take(call.arguments + resumed[2])
            else:
                begun = _CALL.match(rest)
                assert begun, line[:200]
                call = Call(begun[1], begun[2], moment)
                if call.arguments.endswith(_UNFINISHED):
                    call.arguments = call.arguments.removesuffix(_UNFINISHED)
                    running[thread] = call
                    yield call
                    continue
                result = call.take(call.arguments)
                yield call
            if result is not None:
                call.end, call.result = moment + 1, result
                yield call
