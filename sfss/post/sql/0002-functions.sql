-- IMPORT, EXIST, EXPORT, DELETE, DEDUPLICATE: the files for users of SQL. A 'key' is a file's path as users of HTTP write
-- it: 'images/a.jpg'. Each goes straight to the table in which the key's row lies.
--
-- Rights: the functions do what their caller may do himself, and no more. They run as he, so his rights on the tables count
-- (`sfss post migrate --grant ROLE` gives them). The two that touch files of the server are the exception, for PostgreSQL
-- lets only superusers call what reads and writes bytes: they run as who made them, and only members of
-- pg_read_server_files and pg_write_server_files may call them. Keys and paths are values, never a part of a statement.

-- Raises an error, that says what to do, if the caller may not do this to the tables, or to files of the server.
CREATE FUNCTION post.check_right(name TEXT, privilege TEXT, server_role TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF server_role IS NOT NULL AND NOT pg_has_role(current_user, server_role, 'USAGE') THEN
        RAISE EXCEPTION '% is not for %: only who may % files of the server may call it', name, current_user,
                CASE server_role WHEN 'pg_read_server_files' THEN 'read' ELSE 'write' END
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('A superuser can GRANT %I TO %I.', server_role, current_user);
    ELSIF NOT has_table_privilege('post.files', privilege) THEN
        RAISE EXCEPTION '% is not for %: it has no right to % in the tables of sfss', name, current_user, privilege
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Who owns them can run: sfss post migrate --url ... --grant %I', current_user);
    END IF;
END
$$;

CREATE FUNCTION post.check_server_path(name TEXT, path TEXT) RETURNS VOID
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF path IS NULL OR path !~ '^/' THEN
        RAISE EXCEPTION '%: % is no absolute path: name the file on the server from ''/'' on', name, coalesce(quote_literal(path), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- What lies in a file of the server.
CREATE FUNCTION post.read_server_file(path TEXT, largest BIGINT) RETURNS BYTEA
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    size BIGINT;
    is_folder BOOLEAN;
BEGIN
    PERFORM post.check_server_path('IMPORT', path);
    IF NOT (has_function_privilege('pg_read_binary_file(text)', 'EXECUTE')
            AND has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')
            AND pg_has_role(current_user, 'pg_read_server_files', 'USAGE')) THEN
        RAISE EXCEPTION 'IMPORT can''t be used in this database: % made it, who may not read files of the server', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A superuser can run: ALTER FUNCTION post.read_server_file(TEXT, BIGINT) OWNER TO postgres';
    END IF;
    SELECT stat.size, stat.isdir INTO size, is_folder FROM pg_stat_file(path, true) AS stat;
    IF size IS NULL THEN
        RAISE EXCEPTION 'IMPORT: there is no file % on the server', quote_literal(path)
            USING ERRCODE = 'undefined_file', HINT = 'It has to be on the machine on which PostgreSQL runs.';
    ELSIF is_folder THEN
        RAISE EXCEPTION 'IMPORT: % is a folder: name a file', quote_literal(path) USING ERRCODE = 'wrong_object_type';
    ELSIF size > largest THEN
        RAISE EXCEPTION 'IMPORT: % has % bytes, and a row takes at most %', quote_literal(path), size, largest
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Over HTTP sfss cuts it into blocks: sfss put.';
    END IF;
    RETURN pg_read_binary_file(path);
EXCEPTION
    WHEN insufficient_privilege THEN
        IF SQLERRM LIKE 'IMPORT %' THEN
            RAISE;
        END IF;
        RAISE EXCEPTION 'IMPORT: the server may not read %', quote_literal(path)
            USING ERRCODE = 'insufficient_privilege', DETAIL = SQLERRM,
                  HINT = 'The user as whom PostgreSQL runs (postgres) needs the right to read the file and its folders.';
END
$$;
REVOKE ALL ON FUNCTION post.read_server_file(TEXT, BIGINT) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION post.read_server_file(TEXT, BIGINT) TO pg_read_server_files;

-- Make a new file of the server. By way of a large object, which is gone again: nothing else in PostgreSQL writes bytes as
-- they are.
CREATE FUNCTION post.write_server_file(path TEXT, content BYTEA) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    object OID;
BEGIN
    PERFORM post.check_server_path('EXPORT', path);
    IF NOT (has_function_privilege('lo_export(oid, text)', 'EXECUTE')
            AND has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')
            AND pg_has_role(current_user, 'pg_read_server_files', 'USAGE')) THEN
        RAISE EXCEPTION 'EXPORT can''t be used in this database: % made it, who may not write files of the server', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A superuser can run: ALTER FUNCTION post.write_server_file(TEXT, BYTEA) OWNER TO postgres';
    END IF;
    IF (SELECT stat.size FROM pg_stat_file(path, true) AS stat) IS NOT NULL THEN
        RAISE EXCEPTION 'EXPORT: there is % on the server already', quote_literal(path)
            USING ERRCODE = 'duplicate_file', HINT = 'Name a new file, or remove that one first.';
    END IF;
    object := lo_from_bytea(0, content);
    PERFORM lo_export(object, path);
    PERFORM lo_unlink(object);
EXCEPTION
    WHEN undefined_file THEN
        RAISE EXCEPTION 'EXPORT: there is no folder on the server for %', quote_literal(path)
            USING ERRCODE = 'undefined_file', HINT = 'It has to be on the machine on which PostgreSQL runs: make it first.';
    WHEN insufficient_privilege THEN
        IF SQLERRM LIKE 'EXPORT %' THEN
            RAISE;
        END IF;
        RAISE EXCEPTION 'EXPORT: the server may not write %', quote_literal(path)
            USING ERRCODE = 'insufficient_privilege', DETAIL = SQLERRM,
                  HINT = 'The user as whom PostgreSQL runs (postgres) needs the right to make files in that folder.';
END
$$;
REVOKE ALL ON FUNCTION post.write_server_file(TEXT, BYTEA) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION post.write_server_file(TEXT, BYTEA) TO pg_write_server_files;

-- Store a file of the server under a key that nothing lies under yet; how many bytes it has.
CREATE FUNCTION public.import(key TEXT, path TEXT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at BYTEA;
    content BYTEA;
    stored INTEGER;
BEGIN
    PERFORM post.check_right('IMPORT', 'INSERT', 'pg_read_server_files');
    at := post.key_of(key);
    content := post.read_server_file(path, 536870912);
    EXECUTE format(
        -- What was deleted may still be there as a row that says so: the file is newer.
        'INSERT INTO %s AS there (key, content, size, kind, version, front, digest, path)'
        ' VALUES ($1, $2, length($2), 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0, sha256($2), $3)'
        ' ON CONFLICT (key) DO UPDATE SET header = NULL, content = EXCLUDED.content, shared = NULL, size = EXCLUDED.size,'
        ' kind = 1, version = greatest(EXCLUDED.version, there.version + 1), front = 0, digest = EXCLUDED.digest, whole = NULL,'
        ' stripes = NULL, revision = EXCLUDED.revision, expires = NULL, path = EXCLUDED.path'
        ' WHERE there.kind = 4 OR there.expires <= now()', post.partition_of(at))
        USING at, content, CASE WHEN get_byte(at, 0) = ascii('#') THEN key END;
    GET DIAGNOSTICS stored = ROW_COUNT;
    IF stored = 0 THEN
        RAISE EXCEPTION 'IMPORT: there is a file % already', quote_literal(key)
            USING ERRCODE = 'unique_violation', HINT = 'Choose another key, or remove that file first: select DELETE(...).';
    END IF;
    RETURN length(content);
END
$$;

-- Whether there is a file.
CREATE FUNCTION public.exist(key TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at BYTEA;
    found BOOLEAN;
BEGIN
    PERFORM post.check_right('EXIST', 'SELECT');
    at := post.key_of(key);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE key = $1 AND kind IN (1, 2) AND (expires IS NULL OR expires > now()))',
                   post.partition_of(at)) INTO found USING at;
    RETURN found;
END
$$;

-- The bytes of a large file, out of its blocks, if all of them lie here.
CREATE FUNCTION post.joined(key TEXT, stripes TEXT[], whole BIGINT) RETURNS BYTEA
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stripe TEXT;
    block BYTEA;
    pieces BYTEA[] := '{}';
    piece BYTEA;
BEGIN
    IF whole > 536870912 THEN
        RAISE EXCEPTION 'EXPORT: % has % bytes, and at most 536870912 can be put together here', quote_literal(key), whole
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Fetch it over HTTP: sfss get.';
    END IF;
    FOREACH stripe IN ARRAY coalesce(stripes, '{}') LOOP
        FOR number IN 0..split_part(stripe, '/', 2)::INTEGER - 1 LOOP
            block := convert_to(format('#%s/%s', split_part(stripe, '/', 1), number), 'UTF8');
            EXECUTE format('SELECT coalesce(f.content, c.content) FROM %s AS f LEFT JOIN post.contents AS c ON c.hash = f.shared'
                           ' WHERE f.key = $1 AND f.kind = 3', post.partition_of(block)) INTO piece USING block;
            IF piece IS NULL THEN
                RAISE EXCEPTION 'EXPORT: % is a large file that is cut into blocks, and not all of them lie in this database',
                        quote_literal(key)
                    USING ERRCODE = 'feature_not_supported', HINT = 'Fetch it over HTTP: sfss get.';
            END IF;
            pieces := pieces || piece;
        END LOOP;
    END LOOP;
    piece := coalesce((SELECT string_agg(part, ''::BYTEA ORDER BY number)
                       FROM unnest(pieces) WITH ORDINALITY AS parts (part, number)), '');
    IF length(piece) <> whole THEN
        RAISE EXCEPTION 'EXPORT: the blocks of % have % bytes where it has %: one is damaged', quote_literal(key), length(piece), whole
            USING ERRCODE = 'data_corrupted';
    END IF;
    RETURN piece;
END
$$;

-- Write a file into a new file of the server; how many bytes it has.
CREATE FUNCTION public.export(key TEXT, path TEXT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at BYTEA;
    kind INTEGER;
    content BYTEA;
    stripes TEXT[];
    whole BIGINT;
BEGIN
    PERFORM post.check_right('EXPORT', 'SELECT', 'pg_write_server_files');
    at := post.key_of(key);
    EXECUTE format(
        'SELECT f.kind, coalesce(f.content, c.content), f.stripes, f.whole FROM %s AS f'
        ' LEFT JOIN post.contents AS c ON c.hash = f.shared'
        ' WHERE f.key = $1 AND f.kind IN (1, 2) AND (f.expires IS NULL OR f.expires > now())', post.partition_of(at))
        INTO kind, content, stripes, whole USING at;
    IF kind IS NULL THEN
        RAISE EXCEPTION 'EXPORT: there is no file %', quote_literal(key) USING ERRCODE = 'no_data_found';
    ELSIF kind = 2 THEN
        content := post.joined(key, stripes, whole);
    END IF;
    PERFORM post.write_server_file(path, content);
    RETURN length(content);
END
$$;

-- Remove a file; false if there was none.
CREATE FUNCTION public.delete(key TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at BYTEA;
    removed INTEGER;
BEGIN
    PERFORM post.check_right('DELETE', 'DELETE');
    at := post.key_of(key);
    EXECUTE format('DELETE FROM %s WHERE key = $1 AND kind IN (1, 2) AND (expires IS NULL OR expires > now())',
                   post.partition_of(at)) USING at;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed > 0;
END
$$;

-- Deduplication goes in three steps. Nobody but these adds or takes away anything in post.contents, or makes a row refer to
-- it, and only one of them runs at a time: so what no row refers to stays so until it is freed. That must be seen as it is
-- now and not as it was when a transaction began.
CREATE FUNCTION post.begin_step() RETURNS VOID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'DEDUPLICATE needs a transaction that is READ COMMITTED, and this one is %',
                upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED;';
    END IF;
    PERFORM post.check_right('DEDUPLICATE', 'UPDATE');
    PERFORM pg_advisory_xact_lock(1936094067, 2);
END
$$;

-- Put what several rows have into post.contents. A reference takes 32 bytes itself: what is no longer isn't worth one.
CREATE FUNCTION post.keep_twins() RETURNS BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    twins RECORD;
    kept BIGINT := 0;
    added INTEGER;
BEGIN
    PERFORM post.begin_step();
    FOR twins IN SELECT digest, decode(min(encode(key, 'hex')), 'hex') AS key FROM post.files
                 WHERE content IS NOT NULL AND digest IS NOT NULL AND size > 32
                 GROUP BY digest, size HAVING count(*) > 1 LOOP
        EXECUTE format('INSERT INTO post.contents (hash, content) SELECT digest, content FROM %s'
                       ' WHERE key = $1 AND digest = $2 AND content IS NOT NULL ON CONFLICT (hash) DO NOTHING',
                       post.partition_of(twins.key)) USING twins.key, twins.digest;
        GET DIAGNOSTICS added = ROW_COUNT;
        kept := kept + added;
    END LOOP;
    RETURN kept;
END
$$;

-- Have the rows of one table refer to what is in post.contents. A digest finds it; the bytes themselves decide.
CREATE FUNCTION post.share(partition REGCLASS, OUT files BIGINT, OUT bytes BIGINT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM post.begin_step();
    EXECUTE format(
        'WITH moved AS (UPDATE ONLY %s AS f SET content = NULL, shared = c.hash FROM post.contents AS c'
        ' WHERE c.hash = f.digest AND f.content IS NOT NULL AND f.content = c.content RETURNING f.size)'
        ' SELECT count(*), coalesce(sum(size), 0)::bigint FROM moved', partition) INTO files, bytes;
END
$$;

-- Free what no row refers to any more; how many bytes.
CREATE FUNCTION post.free_contents() RETURNS BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    freed BIGINT;
BEGIN
    PERFORM post.begin_step();
    WITH gone AS (
        DELETE FROM post.contents AS c WHERE NOT EXISTS (SELECT FROM post.files AS f WHERE f.shared = c.hash)
        RETURNING octet_length(c.content) AS size
    ) SELECT coalesce(sum(size), 0) INTO freed FROM gone;
    RETURN freed;
END
$$;

CREATE FUNCTION post.partitions() RETURNS SETOF REGCLASS LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'post.files'::regclass
    UNION ALL SELECT 'post.files'::regclass FROM post.layout WHERE digits = 0
    ORDER BY 1
$$;

-- Keep once what several files have in common, and free what none has any more. In one transaction: a file that is moved can
-- be read meanwhile, and who writes or deletes it waits for the end. CALL post.deduplicate_in_steps() has him wait for a step only.
--   contents  how many were found to be in several files, and weren't kept apart yet
--   files     how many rows refer to a content now, that had one of their own
--   bytes     of those
--   freed     bytes of contents that no file had any more
CREATE FUNCTION public.deduplicate(OUT contents BIGINT, OUT files BIGINT, OUT bytes BIGINT, OUT freed BIGINT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM post.check_right('DEDUPLICATE', 'UPDATE');
    contents := post.keep_twins();
    SELECT coalesce(sum(step.files), 0), coalesce(sum(step.bytes), 0) INTO files, bytes
        FROM post.partitions() AS partition, post.share(partition) AS step;
    freed := post.free_contents();
END
$$;

-- The same in many transactions. It has no search_path of its own, for then it could not commit: all names are whole.
CREATE PROCEDURE post.deduplicate_in_steps(INOUT contents BIGINT DEFAULT 0, INOUT files BIGINT DEFAULT 0,
                                  INOUT bytes BIGINT DEFAULT 0, INOUT freed BIGINT DEFAULT 0)
LANGUAGE plpgsql AS $$
DECLARE
    partitions REGCLASS[];
    step RECORD;
BEGIN
    contents := post.keep_twins();
    partitions := ARRAY(SELECT post.partitions());
    COMMIT;
    FOR n IN 1..pg_catalog.array_length(partitions, 1) LOOP
        SELECT * INTO step FROM post.share(partitions[n]);
        files := files + step.files;
        bytes := bytes + step.bytes;
        COMMIT;
    END LOOP;
    freed := post.free_contents();
END
$$;

-- All functions may be called by all: each looks itself what its caller may do, and says so.
GRANT USAGE ON SCHEMA post TO PUBLIC;
