"""What a server's errors come to: to which kind of ours, and that they say what to do."""

from __future__ import annotations

import pytest

from sfss.backends.resp.refusals import code, meaning
from sfss.backends.resp.wire import Refusal
from sfss.errors import NodeRefused, OutOfSpace, SfssError, TooLarge

SCRIPT = "ERR Error running script (call to f_f5b5): @user_script:3: "  # what Redis 6 puts before it


@pytest.mark.parametrize(
    ("text", "what", "kind", "words"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", OutOfSpace, "raise its maxmemory"),
        (f"{SCRIPT}-OOM command not allowed", "OOM", OutOfSpace, "raise its maxmemory"),
        ("MISCONF Errors writing to the AOF file: No space left on device", "MISCONF", OutOfSpace, "room on its disk"),
        (
            "MISCONF Redis is configured to save RDB snapshots",
            "MISCONF",
            NodeRefused,
            "can't save to its disk",
        ),
        ("ERR Protocol error: invalid bulk length", "ERR", TooLarge, "proto-max-bulk-len"),
        ("ERR max request size exceeded. Limit: 1048576 bytes", "ERR", TooLarge, "proto-max-bulk-len"),
        ("READONLY You can't write against a read only replica.", "READONLY", NodeRefused, "name the primary"),
        (f"{SCRIPT}-READONLY You can't write", "READONLY", NodeRefused, "name the primary"),
        ("LOADING Redis is loading the dataset in memory", "LOADING", NodeRefused, "loads its files"),
        ("NOAUTH Authentication required.", "NOAUTH", NodeRefused, "put it into the URL"),
        ("WRONGPASS invalid username-password pair", "WRONGPASS", NodeRefused, "put the right ones"),
        ("NOPERM this user has no permissions to run the 'get' command", "NOPERM", NodeRefused, "its ACL must allow"),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", NodeRefused, "min-replicas-to-write"),
        ("CLUSTERDOWN Hash slot not served", "CLUSTERDOWN", NodeRefused, "cluster that is down"),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", NodeRefused, "changed again and again"),
        ("BUSY Redis is busy running a script.", "BUSY", NodeRefused, "SCRIPT KILL"),
        ("WRONGTYPE Operation against a key", "WRONGTYPE", NodeRefused, "another program"),
        ("ERR max number of clients reached", "ERR", NodeRefused, "maxclients"),
        ("ERR unknown command 'GETRANGE'", "ERR", NodeRefused, "answered ERR unknown command"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(text: str, what: str, kind: type[SfssError], words: str) -> None:
    assert code(Refusal(text)) == what
    error = meaning("a:6379", Refusal(text), 1000)
    assert type(error) is kind
    assert words in str(error)
    assert "a:6379" in str(error)
