"""What is fed to a node: requests of every verb, right and wrong in every way that we could think of, from one seed.

A request is drawn as words, right ones mostly; then words are spoilt, then the block's length, the line's end, and then
bytes. Some requests follow each other in a stream, which comes in pieces. Nothing here knows what the answers are.
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import xxhash

from sfss import record
from sfss.memcache import MAX_LINE

T = TypeVar("T")

CAS = b"<cas>"  # in a stream: the version of the item under KEY, or 5 if there is none
KEY = b"a"
HUGE = b"8388608"  # the longest block that a node takes unless told otherwise, 8 MiB

_MODES = (*(bytes((letter,)) for letter in b"SEAPRID+-seapridX"), b"")
_LETTERS = b"CMINRTtqvk" * 3 + b"NTRlOPLkstcfvhuqFCMJDIbSEWXZazA0!\x7f\xff"


def sealed(packed: bytes) -> bytes:
    """The prefix of a record, and these bytes for its header, with a checksum that holds whatever they are."""
    start = struct.pack(">4sBBH", b"SFSS", 1, 0, len(packed))
    return start + xxhash.xxh3_64_digest(start + packed) + packed


def _record(version: int) -> bytes:
    content = b"of version %d" % version
    checksum = record.payload_checksum(content)
    header = record.Header(record.Kind.FILE, version, 1, len(content), bytes(32), len(content), checksum)
    return record.encode(header, content)


class Input(NamedTuple):
    """What one connection sends, where it is cut into pieces, and how many seconds have gone by before."""

    stream: bytes
    cuts: tuple[int, ...] = ()
    wait: float = 0.0
    requests: int | None = None  # how many they are; None if their lines and blocks may be out of joint

    @property
    def pieces(self) -> list[bytes]:
        """The stream in pieces; some may be empty."""
        return [self.stream[start:end] for start, end in zip((0, *self.cuts), (*self.cuts, None), strict=True)]


KEYS = (KEY, KEY, KEY, b"b", b"c", b"n", b"n", b"/photos/cat.jpg", b"/photos/dog.jpg")
ODD_KEYS = (
    b"k" * 249, b"k" * 250, b"k" * 251, b"\xff" * 250, b"k" * 1000, b"a\0b", b"\0", b"a\tb", b"\t", b"a\rb", b"a\r",
    "ключ".encode(), b"\x80", b"noreply", b"0", b"-1", b"HTTP/1.1", b"get", b"END", b"VALUE", b"\\x20", b"\\", b"\x7f",
    b"q", b"v", CAS,
)  # fmt: skip
BASE64 = (  # of which some are none
    b"YQ==", b"YQ==", b"Yg==", b"YQ", b"Y===", b"====", b"*", b"Y-Q=-", b"Y=Q=", b"/+/+", b"YQ==YQ==", b"YW\0E",
    b"A" * 248, b"A" * 252, *map(base64.b64encode, (b" ", b"\0 binary\r\n", b"\xff" * 186, b"\xff" * 187)),
)  # fmt: skip
NUMBERS = (b"0", b"0", b"0", b"1", b"5", b"10", b"99", b"100", b"3600")
ODD_NUMBERS = (
    b"-1", b"+5", b"-0", b"0x10", b"1e9", b"1.0", b"1_0", b"", b"-", b"+", b"--1", b"+-1", b"1x", b"x", b"5\0",
    b"\x0b5", b"\t7", b"007", b"65535", b"65536", b"1048576", b"2592000", b"2592001", b"1799999999", b"1800000100",
    b"2147483645", b"2147483646", b"2147483647", b"2147483648", b"-2147483648", b"4294967295", b"4294967296",
    b"281474976710655", b"281474976710656", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808",
    b"-9223372036854775809", b"18446744073709551614", b"18446744073709551615", b"18446744073709551616", b"9" * 20,
    b"9" * 21, b"9" * 400, b"0" * 30 + b"1", b"0" * 1900, "٣".encode(), b"\xb2", b"nan", b"inf",
)  # fmt: skip
LENGTHS = (
    HUGE, HUGE, b"-1", b"+5", b"0", b"00000000000000000005", b"1048576", b"8388609", b"2147483645", b"2147483646",
    b"2147483647", b"4294967297", b"-2147483648", b"18446744073709551615", b"9" * 20, b"9" * 21, b"9" * 1000, b"0x5",
)  # fmt: skip
ODD_WORDS = (
    b"noreply", b"noreply", b"noreply", b"", b"", b"\0", b"\t", b"\r", b"\xff", b"HTTP/1.1", b"HTTP/", b"END", b"q",
    b"v", b"NOREPLY", b"no reply", b"x" * 300, b"[a", b"(a", b"-", b"+", b"[", b"(", b"[\\x2", b"[\\x20", CAS,
)  # fmt: skip
BODIES = (
    b"", b"0", b"5", b"99", b"value", b"18446744073709551615", b"18446744073709551614", b" 7", b"5 ", b"-3", b"5\0x",
)  # fmt: skip
ODD_BODIES = (
    b"\r\n", b"\n", b"\0\r\n\xff", b"END\r\n", b"get a\r\nflush_all\r\n", b"x" * 100, b"0" * 1000, b"0" * 1000 + b"x",
    b" " * 1000, b"9" * 30, b"x" * 4094, b"x" * 4095, b"x" * 4096, b"x" * 4097, b"\n" * 300, b"mn\r\n" * 20,
    b"SFSS\x01\0\0\x04" + b"c" * 8 + b"head" + b"payload", b"SFSS\x01\0\xff\xff" + b"c" * 8, b"SFSS\x01\0",
    b"SFSS" * 9, sealed(b"\x90"), sealed(b"\x91" * 300), sealed(b"\x9a\x01\x01"), sealed(b""), sealed(b"\xc1"),
)  # fmt: skip
RECORDS = (_record(1), _record(2), _record(3), _record(2)[:-1], _record(2)[:40])
ENDS = (b"\r\n",) * 24 + (b"\n", b"\n", b"\r\r\n", b" \r\n", b"  \r\n", b"\r", b"", b"\n\r", b"\0\r\n", b"\t\r\n")
SCRAPS = (
    b"\r\n", b"\n", b"\r", b" ", b"\0", b"\xff", b"\t", b"noreply", b"q", b" ", b"0", b"-", b"mn\r\n", b"get a\r\n",
    b"\\", b"quit\r\n", b"GET / HTTP/1.1\r\n", b"set a 0 0 3\r\nabc\r\n", b"ms a 2\r\nab\r\n", b"9999999999",
    b"\r\n\r\n", b"a" * 251, b"\x00" * 30, b"\r\n" * 10, b" " * 100, b"set", b"set a 0 0 2147483645\r\n",
    b"ms a 2147483645\r\n", b"S2147483647",
)  # fmt: skip
TOPICS = (b"", b"reset", b"settings", b"items", b"slabs", b"sizes", b"rocksdb", b"cachedump 1 0", b"conns", b"detail x")


class Grammar:
    """Draws inputs. From the same seed it draws the same ones, everywhere."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._random = self._chance.random
        self._in_joint = True  # whether each line and block of the input at hand ends where it should

    def input(self) -> Input:
        """One or some requests, pipelined, in pieces."""
        draw = self._random
        self._in_joint = True
        stream, requests = self._request(), 1
        while draw() < 0.5:
            stream, requests = stream + self._request(), requests + 1
        if draw() < 0.25:
            stream, self._in_joint = self.spoilt(stream), False
        wait = self._pick((0.4, 1.0, 101.0, 3e6)) if draw() < 0.03 else 0.0
        return Input(stream, self._cuts(stream), wait, requests if self._in_joint else None)

    def spoilt(self, stream: bytes) -> bytes:
        """The same with a few bytes changed, lost, doubled or put in."""
        draw = self._random
        while True:
            at, length = int(draw() * len(stream)), int(draw() ** 3 * 40)
            way = draw()
            if way < 0.3:
                stream = stream[:at] + bytes((int(draw() * 256),)) + stream[at + 1 :]
            elif way < 0.6:
                stream = stream[:at] + self._pick(SCRAPS) + stream[at:]
            elif way < 0.8:
                stream = stream[:at] + stream[at + length :]
            else:
                stream = stream[:at] + stream[at : at + length] + stream[at:]
            if draw() < 0.5:
                return stream

    def _cuts(self, stream: bytes) -> tuple[int, ...]:
        draw, size = self._random, len(stream)
        how = draw()
        if how < 0.4:
            return ()
        if how < 0.43 and size < 300:
            return tuple(range(1, size))  # byte by byte
        if how < 0.6:
            end = stream.find(b"\n", int(draw() * size))  # at a line's end, or just before or behind it
            return (min(max(end + int(draw() * 4) - 1, 0), size),)
        return tuple(sorted(int(draw() * (size + 1)) for _ in range(1 + int(draw() * 3))))

    def _request(self) -> bytes:
        draw = self._random
        if draw() < 0.005:
            self._in_joint = False
            return self._at_a_limit()
        verb, shape = self._pick(_SHAPES)
        words, body = shape(self, verb)
        how = draw()
        if how < 0.2:
            self._spoil(words)
        elif how < 0.3 and body is not None:
            body = self._misjudged(words, body)
        line_end, block_end = self._pick(ENDS), self._pick(ENDS)
        if (
            how < 0.3
            or line_end != b"\r\n"
            or block_end != b"\r\n"
            or not all(words)
            or len(b" ".join(words)) > MAX_LINE
        ):
            self._in_joint = False
        line = b" ".join(words) + line_end
        return line if body is None else line + body + block_end

    def _misjudged(self, words: list[bytes], body: bytes) -> bytes:
        """The block isn't as long as it is said to be."""
        if self._random() < 0.5:
            words[2 if words[0] == b"ms" else 4] = self._pick(LENGTHS)
            return body
        return self._pick((body[:-1], body + b"x", body + b"\r\n", body[: len(body) // 2], b""))

    def _spoil(self, words: list[bytes]) -> None:
        draw = self._random
        while True:
            at, way = int(draw() * len(words)), draw()
            if way < 0.4:
                words[at] = self._pick(ODD_NUMBERS)
            elif way < 0.5:
                words[at] = self._pick(ODD_KEYS)
            elif way < 0.65:
                words[at] = self._pick(ODD_WORDS)
            elif way < 0.85:
                words.insert(at + 1, self._pick(ODD_WORDS))
            elif len(words) > 1:
                del words[at]
            if draw() < 0.7:
                return

    def _at_a_limit(self) -> bytes:
        """What is just within, at, or beyond the longest line; or a great many keys, or noughts."""
        verb = self._pick(
            (b"get", b"gets", b"gat", b"gat", b"gat 0", b"set", b"mg", b"ms", b"delete", b"xx", b"head", b" get")
        )
        size = self._pick((2046, 2047, 2048, 2049, 2050, 4300, 4301, 65534, 65535, 65536, 65537, 70000))
        filling = self._pick((b"k", b"k ", b" k", b"a b ", b"0", b"0", b"k" * 250 + b" ", b" ", b"\t", b"\0"))
        line = (verb + b" " + filling * (size // len(filling) + 1))[:size]
        return line + self._pick((b"", b"\r", b"\n", b"\r\n", b"\r\nmn\r\n", b" 0 0 1\r\nx\r\n"))

    # --- what requests are made of ---

    def _pick(self, among: Sequence[T]) -> T:
        return among[int(self._random() * len(among))]

    def _key(self) -> bytes:
        return self._pick(KEYS if self._random() < 0.9 else ODD_KEYS)

    def _number(self) -> bytes:
        return self._pick(NUMBERS if self._random() < 0.8 else ODD_NUMBERS)

    def _body(self) -> bytes:
        how = self._random()
        return self._pick(BODIES if how < 0.7 else ODD_BODIES if how < 0.9 else RECORDS)

    def _noreply(self) -> list[bytes]:
        return [b"noreply"] if self._random() < 0.15 else []

    # --- the verbs: words, and a block for those that have one ---

    def _storage(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        body = self._body()
        words = [verb, self._key(), self._number(), self._number(), b"%d" % len(body)]
        if verb == b"cas":
            words.append(CAS if self._random() < 0.7 else self._number())
        return words + self._noreply(), body

    def _keys(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        words = [verb, self._key()]
        while self._random() < 0.3:
            words.append(self._key())
        return words, None

    def _gat(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        words, _ = self._keys(verb)
        return [verb, self._number(), *words[1:]], None

    def _key_and_number(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        return [verb, self._key(), self._number(), *self._noreply()], None

    def _delete(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        return [verb, self._key(), *([b"0"] if self._random() < 0.1 else []), *self._noreply()], None

    def _flush(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        return [verb, *([self._number()] if self._random() < 0.5 else []), *self._noreply()], None

    def _stats(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        return [verb, *self._pick(TOPICS).split()], None

    def _alone(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        return [verb], None

    def _scan(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        start = self._pick((b"-", b"[" + self._key(), b"(" + self._key()))
        end = self._pick((b"+", b"[" + self._key(), b"(" + self._key()))
        return [verb, start, end, self._pick((b"1", b"2", b"3", b"10", b"1000", b"10000", self._number()))], None

    def _crawler(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        which = self._pick((b"all", b"hash", b"1", b"1,2", b"64", b"0", b",", self._number()))
        what = self._pick((b"metadump", b"metadump", b"crawl", b"sleep", b"tocrawl", b"enable", b"disable"))
        return [verb, what, which], None

    def _meta(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        draw = self._random
        binary = draw() < 0.2
        words = [verb, self._pick(BASE64) if binary else self._key()]
        body = None
        if verb == b"ms":
            body = self._body()
            words.append(b"%d" % len(body))
        if binary:
            words.append(b"b")
        while draw() < 0.7:
            letter = _LETTERS[int(draw() * len(_LETTERS))]
            words.append(bytes((letter,)) + self._token(letter))
        return words, body

    def _token(self, letter: int) -> bytes:
        """Of a flag: such as it takes, mostly."""
        if self._random() < 0.06:
            return self._pick(ODD_NUMBERS + ODD_KEYS)
        if letter in b"NTRFJDE":
            return self._number()
        if letter in b"C":
            return self._pick((CAS, CAS, b"0", b"5", b"5"))
        if letter in b"M":
            return self._pick(_MODES)
        return self._pick((b"17", b"", b"x" * 31, b"x" * 32)) if letter in b"OLP" else b""

    def _refused(self, verb: bytes) -> tuple[list[bytes], bytes | None]:
        words = self._pick((b"", b"0", b"64", b"reassign 1 2", b"fetchers", b"graceful", b"mode flat", b"1")).split()
        return [verb, *words, *self._noreply()], None


_Shape = Callable[[Grammar, bytes], tuple[list[bytes], bytes | None]]
_VERBS: tuple[tuple[int, _Shape, bytes], ...] = (  # how often, how made, and the verbs
    (6, Grammar._storage, b"set"),
    (3, Grammar._storage, b"add replace append prepend cas cas"),
    (3, Grammar._keys, b"get gets"),
    (1, Grammar._keys, b"bget head"),
    (2, Grammar._gat, b"gat gats"),
    (3, Grammar._key_and_number, b"incr decr touch"),
    (3, Grammar._delete, b"delete"),
    (8, Grammar._meta, b"mg ms ma"),
    (4, Grammar._meta, b"md"),
    (2, Grammar._meta, b"me"),
    (1, Grammar._alone, b"mn version quit"),
    (2, Grammar._scan, b"scan"),
    (1, Grammar._crawler, b"lru_crawler"),
    (1, Grammar._stats, b"stats"),
    (1, Grammar._flush, b"flush_all verbosity"),
    (1, Grammar._refused, b"cache_memlimit slabs shutdown watch refresh_certs lru extstore GET POST mx \xff"),
)
_SHAPES = tuple((verb, shape) for often, shape, verbs in _VERBS for verb in verbs.split() for _ in range(often))
