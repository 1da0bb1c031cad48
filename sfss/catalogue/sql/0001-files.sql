-- The catalogue's first tables. One text for SQLite and PostgreSQL: what only one of them is to be told stands behind a
-- line "-- only NAME". A file here is never changed once it was released: what comes later is the next number.
--
-- Times are text, UTC, ISO 8601 to the microsecond ('2026-11-28T23:54:04.123456Z'): they sort as they are, SQLite's
-- datetime() reads them, and so does PostgreSQL's ::timestamptz. Sizes are bytes.

-- Paths are compared byte by byte, whatever the database's language is. SQLite does so by itself, and takes any type whose
-- name has TEXT in it for text.
-- only postgresql
CREATE DOMAIN path_text AS TEXT COLLATE "C";

-- Every file. What is deleted stays for a while as a row, so that no older change that comes late brings it back. There is
-- no index but that of paths: each would cost every write as much again. Make one, if you need it: CREATE INDEX ...
CREATE TABLE files (
    path         PATH_TEXT PRIMARY KEY,
    file_id      TEXT   NOT NULL,  -- a UUID: the one that the path ends with, or one that is made of the path
    size         BIGINT NOT NULL,
    sha256       TEXT   NOT NULL,  -- of the content, hex; '' of what is deleted
    content_type TEXT   NOT NULL,  -- as it was given, else guessed from the path
    modified     TEXT   NOT NULL,
    version      BIGINT NOT NULL,  -- microseconds since the epoch, and ...
    front        BIGINT NOT NULL,  -- ... who stored it: of two rows the one with the greater pair is the newer
    state        TEXT   NOT NULL,  -- 'stored' or 'deleted'
    record_key   TEXT,             -- the memcached key of its record; NULL: '/' and the path
    place        BIGINT            -- of a file that is one record: on which nodes; NULL: it is cut into blocks, or deleted
);

-- The lists of nodes on which records lie: few, for many files. Not for people; see the view "pieces".
CREATE TABLE places (
    place BIGINT NOT NULL,
    copy  BIGINT NOT NULL,
    node  TEXT   NOT NULL,
    PRIMARY KEY (place, copy)
);

-- What each node has of files that are cut into blocks. A row counts if it is of the version that the file's row has; the
-- others go by and by. Not for people; see the view "pieces".
CREATE TABLE striped_pieces (
    path       PATH_TEXT NOT NULL,
    version    BIGINT NOT NULL,
    front      BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    copy       BIGINT NOT NULL,
    node       TEXT   NOT NULL,
    record_key TEXT   NOT NULL,
    blocks     BIGINT NOT NULL,
    size       BIGINT NOT NULL,
    first_byte BIGINT NOT NULL,
    block_size BIGINT NOT NULL,
    PRIMARY KEY (path, version, front, number, copy)
);

-- Where the bytes of each file lie. A file that is one record is one piece, on each node that has a copy. A larger one is cut
-- into blocks, which go round over its nodes: a piece is what one node has of them.
--   number      from 0
--   copy        0 is the first; each has the same bytes on another node
--   node        its name
--   record_key  the memcached key of the record, or of the piece's first block
--   blocks      how many, of block_size bytes; the next one is as many blocks further in the file as that has pieces
--   size        of the whole piece
--   first_byte  of the file, that is in the piece
CREATE VIEW pieces AS
SELECT files.path, 0 AS number, places.copy, places.node, COALESCE(files.record_key, '/' || files.path) AS record_key,
       1 AS blocks, files.size, 0 AS first_byte, files.size AS block_size
FROM files JOIN places ON places.place = files.place
UNION ALL
SELECT part.path, part.number, part.copy, part.node, part.record_key, part.blocks, part.size, part.first_byte,
       part.block_size
FROM striped_pieces AS part
JOIN files ON files.path = part.path AND files.version = part.version AND files.front = part.front;

-- Uploads that can be resumed, and aren't files yet.
CREATE TABLE uploads (
    upload   TEXT PRIMARY KEY,
    path     TEXT,                 -- NULL: a part of another one
    size     BIGINT,               -- of the whole; NULL: not told yet
    received BIGINT NOT NULL,
    expires  TEXT   NOT NULL
);

-- The nodes, as the front that wrote last saw them. Space as the node tells it; NULL: it doesn't.
CREATE TABLE nodes (
    name            TEXT PRIMARY KEY,
    address         TEXT NOT NULL,
    state           TEXT NOT NULL, -- 'here', 'away'
    role            TEXT NOT NULL, -- 'stays', 'joins', 'leaves'
    last_seen       TEXT,
    records         BIGINT,
    used_space      BIGINT,
    available_space BIGINT,
    total_space     BIGINT
);

-- The ring, of the nodes that stay and that join: a key goes to the first point that is not below the first four bytes,
-- little-endian, of its MD5; behind the last comes the first.
CREATE TABLE ring_points (
    node   TEXT   NOT NULL,
    number BIGINT NOT NULL,        -- from 0
    point  BIGINT NOT NULL,
    PRIMARY KEY (node, number)
);

-- Namespaces and keys are documents on the nodes; these are mirrors. Of a key nothing is here that opens anything.
CREATE TABLE namespaces (
    name          TEXT PRIMARY KEY,
    enabled       BOOLEAN NOT NULL,
    layout        TEXT,
    pieces        BIGINT,
    copies        BIGINT,
    quota         BIGINT,
    max_file_size BIGINT,
    write_once    BOOLEAN,
    details       TEXT NOT NULL    -- all there is, JSON
);
CREATE TABLE keys (
    id      TEXT PRIMARY KEY,
    name    TEXT,
    hash    TEXT,                  -- of the secret
    created TEXT,
    expires TEXT,                  -- NULL: never
    details TEXT NOT NULL          -- all there is, JSON
);

-- The processes that write here. A row goes when its process has ended and owes nothing: one that stays tells of a crash.
CREATE TABLE fronts (
    front   TEXT PRIMARY KEY,
    host    TEXT   NOT NULL,
    pid     BIGINT NOT NULL,
    started TEXT   NOT NULL,
    seen    TEXT   NOT NULL
);

-- 'behind': rows may be missing until a reindex that begins later has ended. 'reindex': who is at it.
CREATE TABLE state (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    since TEXT NOT NULL
);
