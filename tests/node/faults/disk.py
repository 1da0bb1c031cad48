"""A disk under a process, rebuilt from its trace; and what it may hold when the power fails at a moment of that trace.

What is certain then is what POSIX promises and nothing more:

* a file's bytes, if a write of them had returned before an fsync of that file began which has returned;
* a name (made, changed, removed), if the same holds of an fsync of the directory that it is in.

All else that had begun may be there or not: each name by itself, each page or sector of a file by itself and from any
moment since the last such fsync, the file's length from any moment since, and zeros where the length came before the
bytes. An fsync that fails makes nothing certain, and what it was for never becomes so: the kernel may have dropped it
and call the next fsync good.
"""

from __future__ import annotations

import enum
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.node.faults.trace import NEVER, Call, calls

PAGE, SECTOR = 4096, 512


class Luck(enum.Enum):
    """What becomes of what was not certain."""

    NOTHING = enum.auto()  # none of it is there
    ALL = enum.auto()
    ORDER = enum.auto()  # all that was done up to some moment, as a disk that writes in order has it
    PAGES = enum.auto()  # each page, each length and each name by its own chance
    SECTORS = enum.auto()


@dataclass(eq=False)
class Change:
    """To a file's bytes (``data`` at ``offset``; or its length, if that is None), or to names in a directory."""

    begin: int
    end: int
    offset: int = 0
    data: bytes | None = None
    names: dict[str, Node | None] = field(default_factory=dict)
    doubtful: bool = False  # an fsync of it has failed


@dataclass(eq=False)
class Node:
    """A file or a directory."""

    directory: bool
    changes: list[Change] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)  # beginnings and ends of those that went well

    def certain(self, moment: int) -> tuple[list[Change], list[Change]]:
        """The changes that are certain at a moment, and those that had begun and are not."""
        settled = max((begin for begin, end in self.syncs if end < moment), default=-1)
        sure: list[Change] = []
        open_: list[Change] = []
        for change in self.changes:
            if change.end < settled and not change.doubtful:
                sure.append(change)
            elif change.begin < moment:
                open_.append(change)
        return sure, open_

    def names(self, changes: Sequence[Change] | None = None) -> dict[str, Node]:
        """What a directory holds after these changes; after all of them."""
        held: dict[str, Node | None] = {}
        for change in self.changes if changes is None else changes:
            held.update(change.names)
        return {name: node for name, node in held.items() if node is not None}


@dataclass
class _Open:
    node: Node
    position: int = 0
    append: bool = False


@dataclass
class Sending:
    """A reply on its way: bytes that were given to the kernel, and how many it took."""

    connection: int  # number of the process * 65536 + the client's port
    begin: int
    end: int
    size: int
    taken: int


class Disk:
    """The directory ``root`` under one process after the other, each killed or ended before the next."""

    def __init__(self, root: Path) -> None:
        """``root`` as it is now, all of it certain."""
        self.root = root
        self.moment = 0  # of the trace's end so far
        self.starts: list[int] = []  # the moment at which each process began
        self.sendings: list[Sending] = []
        self._top = _read(root)
        self._gone: list[Node] = []  # what was removed since
        self._pending: dict[int, tuple[Call, list[tuple[Node, Change]]]] = {}
        self._open: dict[int, _Open] = {}
        self._sockets: dict[int, int] = {}

    # --- following a process ---

    def follow(self, trace: Path) -> None:
        """The trace of the next process, which has ended. What its last calls did, if it was killed, the files tell."""
        self.starts.append(self.moment)
        self._open, self._sockets, self._pending = {}, {}, {}
        for call in calls(trace, self.moment):
            if id(call) in self._pending:
                self.moment = call.end
                self._finish(*self._pending.pop(id(call)))
            elif call.end == NEVER:
                self.moment = call.begin
                self._pending[id(call)] = call, list(self._begin(call))
        for call, changes in self._pending.values():
            self._settle(call, changes)
        assert self.images_equal(self.root), "the trace and the directory differ"

    def begun(self, moment: int) -> dict[int, int]:
        """Bytes that had been sent on each connection, or begun to be sent, before a moment."""
        begun: dict[int, int] = defaultdict(int)
        for sending in self.sendings:
            if sending.begin < moment:
                begun[sending.connection] += sending.taken if sending.end < moment else sending.size
        return begun

    def _begin(self, call: Call) -> Iterator[tuple[Node, Change]]:
        """What a call may change from now on. Its end says whether it does."""
        match call.name:
            case "write" | "pwrite64" if (opened := self._open.get(int(call.word(0)))) is not None:
                [data] = call.texts() or [b""]
                if call.name == "pwrite64":
                    offset = int(call.last())
                else:
                    offset = len(_bytes(opened.node.changes)) if opened.append else opened.position
                    opened.position = offset + len(data)
                yield _begun(opened.node, Change(call.begin, NEVER, offset, data))
            case "ftruncate" if (opened := self._open.get(int(call.word(0)))) is not None:
                yield _begun(opened.node, Change(call.begin, NEVER, int(call.last())))
            case "close":
                self._open.pop(int(call.arguments), None)
                self._sockets.pop(int(call.arguments), None)

    def _finish(self, call: Call, changes: list[tuple[Node, Change]]) -> None:
        """A call has ended: what it did is known."""
        for node, change in changes:
            if call.result < 0:
                node.changes.remove(change)
            elif change.data is not None:
                change.data = change.data[: call.result]
            change.end = call.end
        if call.name in ("fsync", "fdatasync"):
            self._synced(call)
        elif call.result >= 0 and not changes:
            self._effect(call)

    def _synced(self, call: Call) -> None:
        opened = self._open.get(int(call.arguments))
        if opened is None:
            return
        if call.result >= 0:
            opened.node.syncs.append((call.begin, call.end))
            return
        for change in opened.node.certain(call.end)[1]:
            change.doubtful = True

    def _effect(self, call: Call) -> None:
        """What a call has done that went well, and that is no change of a file's bytes."""
        match call.name:
            case "open" | "openat" | "creat":
                self._opened(call)
            case "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "link" | "linkat":
                self._named(call)
            case "unlink" | "unlinkat" | "rmdir":
                self._name(call, {self._path(call.texts()[0]): None})
            case "accept" | "accept4":
                self._sockets.pop(call.result, None)  # of a connection before, whose number it has got
            case "getpeername":
                if found := re.search(r"sin_port=htons\((\d+)\)", call.arguments):
                    self._sockets[int(call.word(0))] = (len(self.starts) - 1) * 65536 + int(found[1])
            case "sendto" | "sendmsg" | "write" | "writev":
                self._sent(call)
            case "close":
                pass
            case _:
                self._other(call)

    def _named(self, call: Call) -> None:
        *old, new = map(self._path, call.texts())
        node = self._at(old[0]) if old else Node(directory=True)
        gone: dict[Path | None, Node | None] = {old[0]: None} if call.name.startswith("rename") else {}
        self._name(call, {**gone, new: node})

    def _sent(self, call: Call) -> None:
        descriptor = int(call.word(0))
        assert descriptor not in self._open, call.name
        if (connection := self._sockets.get(descriptor)) is not None:
            size = sum(map(len, call.texts()))
            self.sendings.append(Sending(connection, call.begin, call.end, size, call.result))

    def _other(self, call: Call) -> None:
        """Calls that change nothing, as long as they are made as we know them."""
        if call.name == "mmap":
            shared = "MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments
            assert not (shared and int(call.last(2)) in self._open), "a file is written by mapping it"
            return
        opened = self._open.get(int(call.word(0)))
        if opened is None or call.name == "sync_file_range":
            return
        if call.name == "lseek":
            opened.position = call.result
        elif call.name.startswith("dup") or "F_DUPFD" in call.arguments:
            self._open[call.result] = opened
        else:
            known = call.name == "fcntl" or (call.name == "fallocate" and "FALLOC_FL_KEEP_SIZE" in call.arguments)
            assert known, f"what does {call.name}({call.arguments[:200]}) do to a disk?"

    def _opened(self, call: Call) -> None:
        path = self._path(call.texts()[0])
        if path is None:
            return
        node = self._at(path)
        if node is None:
            if "O_CREAT" not in call.arguments:
                return  # a socket
            node = Node(directory=False)
            self._name(call, {path: node})
        elif "O_TRUNC" in call.arguments:
            node.changes.append(Change(call.begin, call.end, 0))
        assert "O_TMPFILE" not in call.arguments
        self._open[call.result] = _Open(node, append="O_APPEND" in call.arguments)

    def _name(self, call: Call, names: dict[Path | None, Node | None]) -> None:
        by_parent: dict[Path, dict[str, Node | None]] = defaultdict(dict)
        for path, node in names.items():
            if path is not None:
                by_parent[path.parent][path.name] = node
        for parent, changed in by_parent.items():
            folder = self._at(parent)
            assert folder is not None, parent
            self._gone += [node for name, node in folder.names().items() if name in changed and changed[name] is None]
            folder.changes.append(Change(call.begin, call.end, names=changed))

    def _path(self, text: bytes) -> Path | None:
        """A path as seen from ``root``; None if it lies elsewhere."""
        path = Path(text.decode())
        return path.relative_to(self.root) if path.is_relative_to(self.root) else None

    def _at(self, path: Path | None) -> Node | None:
        if path is None:
            return None
        node: Node | None = self._top
        for name in path.parts:
            node = node.names().get(name) if node else None
        return node

    def _settle(self, call: Call, changes: list[tuple[Node, Change]]) -> None:
        """A call that its process' death cut short has done what the directory shows."""
        for node, change in changes:
            held = self._real(node)
            if change.data is not None:
                length = max(len(held) - change.offset, 0) if held is not None else 0
                change.data = change.data[:length]
                if held is None or held[change.offset : change.offset + len(change.data)] != change.data:
                    node.changes.remove(change)
            change.end = self.moment
        if call.name.startswith("send"):
            self._effect(call)
        if call.name in ("unlink", "rename", "mkdir") or (call.name == "openat" and "O_CREAT" in call.arguments):
            path = self._path(call.texts()[-1])
            if path is not None and ((self.root / path).exists() == (call.name != "unlink")):
                call.end, call.result = self.moment, 2**30
                self._effect(call)

    def _real(self, node: Node) -> bytes | None:
        for path, other in _walk(self._top, Path()):
            if other is node:
                return (self.root / path).read_bytes() if (self.root / path).is_file() else None
        return None

    # --- cutting the power ---

    def tense(self, chance: random.Random) -> int:
        """A moment at which a file or directory, each as likely as another, is being synced, and so unsure."""
        nodes = [self._top, *(node for _, node in _walk(self._top, Path())), *self._gone]
        syncs = [found for node in nodes if (found := [sync for sync in node.syncs if sync[0] >= 0])]
        return chance.randint(*chance.choice(chance.choice(syncs)))

    def build(self, target: Path, moment: int, luck: Luck, chance: random.Random) -> None:
        """Make at ``target`` what ``root`` may hold when the power failed at a moment of the trace."""
        until = chance.randrange(max(moment - 2000, 0), moment + 1)  # for ORDER
        self._build(self._top, target, moment, luck, until, chance)

    def _build(self, node: Node, target: Path, moment: int, luck: Luck, until: int, chance: random.Random) -> None:
        if not node.directory:
            target.write_bytes(_file(node, moment, luck, until, chance))
            return
        target.mkdir()
        for name, child in node.names(_kept(node, moment, luck, until, chance)).items():
            self._build(child, target / name, moment, luck, until, chance)

    def images_equal(self, directory: Path) -> bool:
        """Whether all that was followed has made of the directory what it is."""
        held = {path: _bytes(node.changes) for path, node in _walk(self._top, Path()) if not node.directory}
        real = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        return held == real


def _begun(node: Node, change: Change) -> tuple[Node, Change]:
    node.changes.append(change)
    return node, change


def _is_lucky(change: Change, luck: Luck, until: int, chance: random.Random) -> bool:
    if luck is Luck.ORDER:
        return change.end <= until
    return luck is Luck.ALL or (luck is not Luck.NOTHING and chance.random() < 0.5)


def _kept(node: Node, moment: int, luck: Luck, until: int, chance: random.Random) -> list[Change]:
    """The changes that are certain, and those that happen to be there, in order."""
    sure, open_ = node.certain(moment)
    kept = {*sure, *(change for change in open_ if _is_lucky(change, luck, until, chance))}
    return [change for change in node.changes if change in kept]


def _file(node: Node, moment: int, luck: Luck, until: int, chance: random.Random) -> bytes:
    if luck in (Luck.NOTHING, Luck.ALL, Luck.ORDER):
        return _bytes(_kept(node, moment, luck, until, chance))
    sure, open_ = node.certain(moment)
    return _torn(sure, open_, PAGE if luck is Luck.PAGES else SECTOR, chance)


def _torn(sure: list[Change], open_: list[Change], unit: int, chance: random.Random) -> bytes:
    """Each unit as it was at some moment since it was certain, and the length at another."""
    held = bytearray()
    for change in sure:
        _apply(held, change)
    result, sizes = bytearray(held), [len(held)]
    chosen: dict[int, int] = {}  # unit -> after how many of the changes it is seen
    for change in open_:
        end = change.offset + (len(change.data) if change.data is not None else 0)
        for number in range(change.offset // unit, max(end - 1, change.offset) // unit + 1):
            chosen[number] = chance.choice((0, len(open_), chance.randrange(len(open_) + 1)))
    at: dict[int, list[int]] = defaultdict(list)
    for number, count in chosen.items():
        at[count].append(number)
    for count, change in enumerate(open_, 1):
        _apply(held, change)
        sizes.append(len(held))
        for number in at[count]:
            begin = number * unit
            if len(result) < begin + unit:
                result.extend(bytes(begin + unit - len(result)))
            result[begin : begin + unit] = held[begin : begin + unit].ljust(unit, b"\0")
    size = chance.choice((sizes[-1], max(sizes), chance.choice(sizes)))
    return bytes(result[:size]).ljust(size, b"\0")


def _bytes(changes: Sequence[Change]) -> bytes:
    held = bytearray()
    for change in changes:
        _apply(held, change)
    return bytes(held)


def _apply(held: bytearray, change: Change) -> None:
    end = change.offset + len(change.data or b"")
    if len(held) < end:
        held.extend(bytes(end - len(held)))
    if change.data is None:
        del held[end:]
    else:
        held[change.offset : end] = change.data


def _walk(node: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    for name, child in node.names().items():
        yield path / name, child
        if child.directory:
            yield from _walk(child, path / name)


def _read(path: Path) -> Node:
    """What lies there, as of before the first moment."""
    if path.is_file():
        return Node(False, [Change(-3, -2, 0, path.read_bytes())], [(-1, -1)])
    names = {child.name: _read(child) for child in path.iterdir() if child.is_dir() or child.is_file()}
    return Node(True, [Change(-3, -2, names=dict(names))], [(-1, -1)])
