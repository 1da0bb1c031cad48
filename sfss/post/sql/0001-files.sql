-- Where a PostgreSQL node keeps its records. A file here is never changed once it was released: what comes later is the
-- next number. `sfss post migrate` runs them in one transaction, and makes the partitions behind the first.
--
-- Keys are as on every node (docs/record-format.rst), and compared byte by byte: BYTEA is, whatever the database's
-- language is.

-- How many hexadecimal digits of a key's MD5 name its partition: 0 (there is one table), 1 or 2.
CREATE TABLE post.layout (
    digits SMALLINT NOT NULL CHECK (digits IN (0, 1, 2))
);
CREATE UNIQUE INDEX only_one_row ON post.layout ((true));

-- Each writing of a row gives it a number that no row had before, so that a change can be made on condition that the row
-- is still the one that was read.
CREATE SEQUENCE post.revisions CACHE 32;

-- What several keys have in common, once. Only DEDUPLICATE() puts anything here or takes it away; who overwrites or
-- deletes a row leaves its content here, for others may have it.
CREATE TABLE post.contents (
    hash    BYTEA PRIMARY KEY,  -- the digest of the rows that have it
    content BYTEA NOT NULL
);
ALTER TABLE post.contents ALTER COLUMN content SET STORAGE EXTERNAL;

-- The records. With partitions this table is empty: each row lies in the child that the MD5 of its key names.
CREATE TABLE post.files (
    key      BYTEA  NOT NULL,
    header   BYTEA,            -- a record's prefix and header; NULL after IMPORT(), until a front reads it first; empty of
                               -- what is no record
    content  BYTEA,            -- what comes behind it: a file's bytes, as they are
    shared   BYTEA,            -- ... or where it lies in post.contents
    size     BIGINT NOT NULL,  -- of the content, bytes
    kind     SMALLINT,         -- 1 a file, 2 what names the blocks of a large file, 3 a block, 4 there was a file; and others
    version  BIGINT,           -- microseconds since the epoch at who wrote it, and ...
    front    BIGINT,           -- ... who that was: the record with the greater pair is the newer; NULL of what is no record
    digest   BYTEA,            -- SHA-256 of a file's content, XXH3-128 of a block's: DEDUPLICATE() looks for equal ones
    revision BIGINT NOT NULL DEFAULT nextval('post.revisions'),
    whole    BIGINT,           -- of a file that is cut into blocks: how many bytes it has, and ...
    stripes  TEXT[],           -- ... where they are, in order: 'ID/3' are the blocks under the keys #ID/0, #ID/1 and #ID/2
    expires  TIMESTAMPTZ,      -- from then on it isn't there; NULL: never
    path     TEXT,             -- of what IMPORT() has put, if its key doesn't tell it
    CONSTRAINT content_is_somewhere CHECK (num_nonnulls(content, shared) = 1)
);
-- Pictures can't be compressed any further, and what isn't compressed is read without being unpacked.
ALTER TABLE post.files ALTER COLUMN content SET STORAGE EXTERNAL;

-- The table in which a key's row lies.
CREATE FUNCTION post.partition_of(key BYTEA) RETURNS TEXT
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN digits = 0 THEN 'post.files' ELSE 'post.files_' || left(md5(key), digits) END FROM post.layout
$$;

CREATE FUNCTION post.refuse_insert() RETURNS TRIGGER LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'post.files takes no rows: each belongs in the partition that the MD5 of its key names'
        USING ERRCODE = 'wrong_object_type',
              HINT = format('This one belongs in %s; select IMPORT(''path/of/the/file'', ''/path/on/the/server'') puts it there.',
                            post.partition_of(NEW.key));
END
$$;

-- Once. Each partition has a check, so that no row can lie where nobody would look for it.
CREATE FUNCTION post.make_partitions(digits INTEGER) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name TEXT;
    partition TEXT;
BEGIN
    INSERT INTO post.layout (digits) VALUES (make_partitions.digits);
    ALTER TABLE post.files ADD PRIMARY KEY (key);  -- if it is empty, too: lists merge indexes, and each table has to have one
    IF make_partitions.digits = 0 THEN
        CREATE INDEX files_expires ON post.files (expires) WHERE expires IS NOT NULL;
        RETURN;
    END IF;
    FOR name IN SELECT lpad(to_hex(n), make_partitions.digits, '0')
                FROM generate_series(0, (16 ^ make_partitions.digits)::integer - 1) AS n LOOP
        partition := format('files_%s', name);
        EXECUTE format(
            'CREATE TABLE post.%1$I (PRIMARY KEY (key), CONSTRAINT its_keys CHECK (left(md5(key), %2$s) = %3$L))'
            ' INHERITS (post.files)', partition, make_partitions.digits, name);
        EXECUTE format('CREATE INDEX %I ON post.%I (expires) WHERE expires IS NOT NULL', partition || '_expires', partition);
    END LOOP;
    CREATE TRIGGER no_insert BEFORE INSERT ON post.files FOR EACH ROW EXECUTE FUNCTION post.refuse_insert();
END
$$;
REVOKE ALL ON FUNCTION post.make_partitions(INTEGER) FROM PUBLIC;

-- The key of a path, as sfss/paths.py makes it. Raises what is wrong with the path.
CREATE FUNCTION post.key_of(path TEXT) RETURNS BYTEA
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong TEXT;
    escaped TEXT;
    blank TEXT;
    hash BIT(260);
    name TEXT := '#';
BEGIN
    wrong := CASE
        WHEN coalesce(path, '') = '' THEN 'the path is empty: give the file a name, e.g. ''photos/cat.jpg'''
        WHEN octet_length(path) > 1024
            THEN format('the path has %s bytes in UTF-8: at most 1024 are possible', octet_length(path))
        WHEN left(path, 1) = '/' THEN format('the path begins with ''/'': leave it out, %L', left(ltrim(path, '/'), 100))
        WHEN path ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'the path holds a control character: leave it out'
        WHEN position('\' IN path) > 0 THEN 'the path holds a backslash: use ''/'' between folders'
        WHEN '/' || path || '/' ~ '/\.{0,2}/'
            THEN 'the path holds an empty segment, ''.'' or ''..'': every part between slashes needs a name of its own'
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
    escaped := replace(path, '%', '%25');
    -- Whatever some client or server of memcached's protocol may take for the end of a key.
    FOR blank IN SELECT DISTINCT hit[1] FROM regexp_matches(
            path, '[\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]', 'g') AS hit LOOP
        escaped := replace(escaped, blank, upper(regexp_replace(encode(convert_to(blank, 'UTF8'), 'hex'), '(..)', '%\1', 'g')));
    END LOOP;
    IF octet_length(escaped) <= 249 THEN
        RETURN convert_to('/' || escaped, 'UTF8');
    END IF;
    hash := ('x' || encode(sha256(convert_to(path, 'UTF8')), 'hex'))::BIT(256)::BIT(260);
    FOR digit IN 0..51 LOOP  -- base32
        name := name || substr('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', substring(hash FROM digit * 5 + 1 FOR 5)::BIT(5)::INTEGER + 1, 1);
    END LOOP;
    RETURN convert_to(name, 'UTF8');
END
$$;

-- The path whose key it is; NULL where the key doesn't tell.
CREATE FUNCTION post.path_of(key BYTEA) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    path BYTEA := ''::BYTEA;
    at INTEGER := 2;
BEGIN
    IF substring(key FROM 1 FOR 1) <> '/'::BYTEA THEN
        RETURN NULL;
    END IF;
    IF position('%'::BYTEA IN key) = 0 THEN
        RETURN convert_from(substring(key FROM 2), 'UTF8');
    END IF;
    WHILE at <= length(key) LOOP
        IF substring(key FROM at FOR 1) = '%'::BYTEA THEN
            path := path || decode(convert_from(substring(key FROM at + 1 FOR 2), 'UTF8'), 'hex');
            at := at + 3;
        ELSE
            path := path || substring(key FROM at FOR 1);
            at := at + 1;
        END IF;
    END LOOP;
    RETURN convert_from(path, 'UTF8');
EXCEPTION
    WHEN character_not_in_repertoire OR untranslatable_character OR invalid_parameter_value THEN RETURN NULL;
END
$$;

-- The files, for people. It goes through all partitions: where one file is meant, EXIST() and EXPORT() are quicker.
CREATE VIEW post.listing AS
SELECT coalesce(post.path_of(key), path) AS path, coalesce(whole, size) AS size,
       to_timestamp(version / 1e6) AS modified, kind = 2 AS in_blocks, tableoid::regclass AS partition, key
FROM post.files
WHERE kind IN (1, 2) AND (expires IS NULL OR expires > now());
