-- The search index: block postings (docs/decisions/0067-search-index.md), one index a project for what its team sees and
-- one for each actor's private memories.
-- A memory that is new or changed waits in the tail with its words; the keeper (services/keep_index.py) merges tails into segments.
-- Locks against writes: projects, sessions, memories

CREATE TABLE commonplace.search_indexes (
    number       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team_id      uuid NOT NULL,
    project_id   uuid NOT NULL,
    owner_actor  text NOT NULL,
    next_block   integer NOT NULL DEFAULT 0,
    next_single  integer NOT NULL DEFAULT 0,
    next_segment integer NOT NULL DEFAULT 1,
    UNIQUE (team_id, project_id, owner_actor),
    UNIQUE (team_id, number),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN commonplace.search_indexes.owner_actor IS 'Whose private memories these are; empty: what the team sees.';
COMMENT ON COLUMN commonplace.search_indexes.next_block IS 'The next session''s 32 places begin at 32 times this.';
COMMENT ON COLUMN commonplace.search_indexes.next_single IS 'The next memory without a session is document 2^24 plus this.';

-- A document is a memory as it was indexed: a text that changes becomes another one. No docno is ever used again.
-- segment: into which it was merged. Segments that are put together keep the first's number, so that each of its postings stands in
-- the last list of the word that is not after this one.
CREATE TABLE commonplace.search_documents (
    index_no  integer NOT NULL,
    docno     integer NOT NULL,
    segment   integer NOT NULL,
    team_id   uuid NOT NULL,
    memory_id uuid NOT NULL,
    PRIMARY KEY (index_no, docno),
    UNIQUE (memory_id),
    FOREIGN KEY (team_id, index_no) REFERENCES commonplace.search_indexes (team_id, number) ON DELETE CASCADE
);

-- Where the next memory of a session goes: place `used` of its newest block.
CREATE TABLE commonplace.search_sessions (
    session_id uuid NOT NULL,
    index_no   integer NOT NULL,
    team_id    uuid NOT NULL,
    block      integer NOT NULL,
    used       integer NOT NULL CHECK (used BETWEEN 0 AND 32),
    PRIMARY KEY (session_id, team_id, index_no),
    FOREIGN KEY (team_id, session_id) REFERENCES commonplace.sessions (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, index_no) REFERENCES commonplace.search_indexes (team_id, number) ON DELETE CASCADE
);
CREATE INDEX search_sessions_of_index ON commonplace.search_sessions (index_no);

CREATE TABLE commonplace.search_segments (
    index_no  integer NOT NULL,
    segment   integer NOT NULL,
    team_id   uuid NOT NULL,
    level     integer NOT NULL DEFAULT 0,
    documents integer NOT NULL,
    PRIMARY KEY (index_no, segment),
    FOREIGN KEY (team_id, index_no) REFERENCES commonplace.search_indexes (team_id, number) ON DELETE CASCADE
);

-- The postings of one word in one segment: int4 each, big-endian, docno * 64 + impact (1 to 63).
CREATE TABLE commonplace.search_postings (
    index_no integer NOT NULL,
    term     integer NOT NULL,
    segment  integer NOT NULL,
    team_id  uuid NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (index_no, term, segment)
);
COMMENT ON TABLE commonplace.search_postings IS
    'Goes with its index by drop_postings: a reference would be looked up for each of a merge''s thousands of rows.';
ALTER TABLE commonplace.search_postings ALTER data SET STORAGE EXTERNAL,
    SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- Memories that no segment has yet. terms: search_terms of the memory.
CREATE TABLE commonplace.search_tail (
    team_id     uuid NOT NULL,
    project_id  uuid NOT NULL,
    owner_actor text NOT NULL,
    number      integer NOT NULL,
    memory_id   uuid NOT NULL,
    session_id  uuid,
    terms       bytea NOT NULL,
    PRIMARY KEY (team_id, project_id, owner_actor, number),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE
);
ALTER TABLE commonplace.search_tail SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Documents that are gone and whose postings are not: nothing finds them, and the keeper takes the postings away.
CREATE TABLE commonplace.search_purges (
    index_no integer NOT NULL,
    docno    integer NOT NULL,
    segment  integer NOT NULL,
    team_id  uuid NOT NULL,
    terms    integer[] NOT NULL,
    PRIMARY KEY (index_no, docno),
    FOREIGN KEY (team_id, index_no) REFERENCES commonplace.search_indexes (team_id, number) ON DELETE CASCADE
);

-- Hints where the keeper should look: an index of this project may have something to merge, to purge, or to build anew from the
-- memory `rebuild_from` on. Rows are only added: a counter would be one hot row for all who write to a project.
CREATE TABLE commonplace.search_work (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team_id      uuid NOT NULL,
    project_id   uuid NOT NULL,
    rebuild_from integer,
    queued_at    timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN commonplace.search_work.rebuild_from IS '-1: what there is of the index goes first.';
CREATE INDEX search_work_of_project ON commonplace.search_work (team_id, project_id);
CREATE UNIQUE INDEX search_work_rebuilds ON commonplace.search_work (team_id, project_id) WHERE rebuild_from IS NOT NULL;
ALTER TABLE commonplace.search_work SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['search_indexes', 'search_documents', 'search_sessions', 'search_segments', 'search_postings',
        'search_tail', 'search_purges', 'search_work']
    LOOP
        EXECUTE format('ALTER TABLE commonplace.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY team_only ON commonplace.%I TO commonplace_runtime '
            'USING (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid)) '
            'WITH CHECK (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid))', tenant_table);
        EXECUTE format('CREATE POLICY owner_all ON commonplace.%I TO commonplace_owner USING (true) WITH CHECK (true)', tenant_table);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON commonplace.%I TO commonplace_runtime', tenant_table);
    END LOOP;
END
$$;

-- A word as postings name it. hashtext is what hash joins of text use: the same on every machine of one byte order.
CREATE FUNCTION commonplace.search_term(p_lexeme text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtext(p_lexeme COLLATE "C");

-- What a tail holds of a memory: for each word its term (int4) and its impact (int2), big-endian, 6 bytes.
-- In plpgsql and behind OFFSET 0, else each count is made several times: 0.06 ms for 45 words instead of 0.095.
-- impact = 63 * tf / (tf + 0.9 * (0.6 + 0.4 * words / 30)), BM25's tf part with k1 = 0.9 and b = 0.4 beside a constant mean length.
-- tf counts a word of the title twice, a keyword or tag one and a half times; D holds every word of all of them once more, so only
-- what stands in D alone, the part of an identifier or the word with other letters, counts there.
CREATE FUNCTION commonplace.search_terms(p_lexemes tsvector) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
    WITH word AS (
        SELECT commonplace.search_term(lexeme) AS term,
            coalesce(cardinality(array_positions(weights, 'A')), 0) AS a, coalesce(cardinality(array_positions(weights, 'B')), 0) AS b,
            coalesce(cardinality(array_positions(weights, 'C')), 0) AS c, coalesce(cardinality(array_positions(weights, 'D')), 1) AS d
        FROM unnest(p_lexemes) OFFSET 0
    ), counted AS (
        SELECT term, 2 * a + 1.5::float8 * b + c + 0.7::float8 * greatest(0, d - a - b - c) AS tf, sum(greatest(a + c, d - b)) OVER () AS words
        FROM word
    )
    SELECT coalesce(string_agg(int4send(term)
        || int2send(greatest(1, round(63 * tf / (tf + 0.9 * (0.6 + 0.4 * words / 30.0::float8))))::smallint), ''), '')
    FROM counted);
END
$$;

-- For how many memories one counts in a tail: words beyond 341 are those of another one.
CREATE FUNCTION commonplace.search_weight(p_terms bytea) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(1, octet_length(p_terms) / 2048);

-- Whose index holds a memory.
CREATE FUNCTION commonplace.search_owner(p_visibility text, p_owner_actor text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_visibility = 'team' THEN '' ELSE p_owner_actor END;

-- Whose words a memory has, as a question would name them, in lower case: metadata's author, or a person's own name without the part
-- of an address that all share. Other actors are called after what they do, which is no name.
CREATE FUNCTION commonplace.author_name(p_owner_actor text, p_metadata jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lower(left(CASE WHEN jsonb_typeof(p_metadata -> 'author') = 'string' THEN p_metadata ->> 'author'
    WHEN p_owner_actor LIKE 'human:%' THEN split_part(substr(p_owner_actor, 7), '@', 1) ELSE '' END, 200));

-- The words that find a memory: those of its text, and its author's name as a keyword.
CREATE FUNCTION commonplace.search_lexemes(p_lexemes tsvector, p_owner_actor text, p_metadata jsonb) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_lexemes || setweight(to_tsvector('pg_catalog.english',
    commonplace.split_identifiers(commonplace.author_name(p_owner_actor, p_metadata))), 'B');

-- Keeps the index beside the memories: `fresh` and `gone` are the rows of the statement, as far as it has them.
-- The tail before the documents: a merge moves rows from the one to the other, and whoever waited for it finds them there.
-- Rows are looked for one by one, by their full keys, and never by going through a table (SET enable_seqscan): what is planned
-- while the tables are empty would read all of them later.
CREATE FUNCTION commonplace.keep_index() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    stale uuid[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        stale := ARRAY(SELECT id FROM (
            SELECT id, lexemes, project_id, session_id, commonplace.search_owner(visibility, owner_actor),
                commonplace.author_name(owner_actor, metadata) FROM fresh
            EXCEPT SELECT id, lexemes, project_id, session_id, commonplace.search_owner(visibility, owner_actor),
                commonplace.author_name(owner_actor, metadata) FROM gone) AS changed);
        IF stale = '{}' THEN
            RETURN NULL;
        ELSIF cardinality(stale) = (SELECT count(*) FROM fresh) THEN
            stale := NULL;
        END IF;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM commonplace.search_tail WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM gone g CROSS JOIN LATERAL (SELECT w.ctid FROM commonplace.search_tail w
                WHERE w.team_id = g.team_id AND w.project_id = g.project_id
                    AND w.owner_actor = commonplace.search_owner(g.visibility, g.owner_actor) AND w.number = g.number OFFSET 0) AS t
            WHERE stale IS NULL OR g.id = ANY (stale)));
        -- Where the project goes whole, it or its index may be gone by now: what would refer to them is left out.
        -- So is what went with an index that was taken away while this waited: it is not among `removed`.
        WITH dead AS MATERIALIZED (
            SELECT d.ctid AS place, d.index_no, d.docno, d.segment, g.team_id, g.project_id,
                commonplace.search_lexemes(g.lexemes, g.owner_actor, g.metadata) AS lexemes
            FROM gone g CROSS JOIN LATERAL (SELECT x.ctid, x.index_no, x.docno, x.segment FROM commonplace.search_documents x
                WHERE x.memory_id = g.id AND x.team_id = g.team_id OFFSET 0) AS d
            WHERE stale IS NULL OR g.id = ANY (stale)
        ), removed AS (
            DELETE FROM commonplace.search_documents WHERE ctid = ANY (ARRAY(SELECT place FROM dead)) RETURNING index_no, docno
        ), hinted AS (
            INSERT INTO commonplace.search_work (team_id, project_id)
            SELECT p.team_id, p.id FROM (SELECT DISTINCT team_id, project_id FROM dead) AS d
            CROSS JOIN LATERAL (SELECT team_id, id FROM commonplace.projects WHERE team_id = d.team_id AND id = d.project_id OFFSET 0) AS p
        )
        INSERT INTO commonplace.search_purges (index_no, docno, segment, team_id, terms)
        SELECT index_no, docno, segment, team_id, ARRAY(SELECT commonplace.search_term(lexeme) FROM unnest(lexemes))
        FROM dead JOIN removed USING (index_no, docno) CROSS JOIN LATERAL (SELECT FROM commonplace.search_indexes i
            WHERE i.team_id = dead.team_id AND i.number = dead.index_no OFFSET 0) AS held;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO commonplace.search_tail (team_id, project_id, owner_actor, number, memory_id, session_id, terms)
        SELECT team_id, project_id, commonplace.search_owner(visibility, owner_actor), number, id, session_id,
            commonplace.search_terms(commonplace.search_lexemes(lexemes, owner_actor, metadata))
        FROM fresh WHERE stale IS NULL OR id = ANY (stale);
        -- A hint with every 32nd is enough, more often where they weigh more. By a hash: numbers are dealt to all projects alike, and
        -- writers who take turns would leave one project the odd ones for ever.
        INSERT INTO commonplace.search_work (team_id, project_id)
        SELECT DISTINCT team_id, project_id FROM fresh
        WHERE hashint4(number) & 31 < greatest(1, length(lexemes) / 341) AND (stale IS NULL OR id = ANY (stale));
    END IF;
    RETURN NULL;
END
$$;

-- The postings of an index go with it. Whoever writes some has locked the index first.
CREATE FUNCTION commonplace.drop_postings() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM commonplace.search_postings WHERE team_id = OLD.team_id AND index_no = OLD.number;
    RETURN NULL;
END
$$;

-- Projects that the keeper was given hints of: [{"teamId", "projectId"}], of each team one after the other, those with the oldest
-- first, so that no team waits for all projects of another.
CREATE FUNCTION commonplace.search_work_v1(p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('teamId', team_id, 'projectId', project_id) ORDER BY turn, first), '[]')
    FROM (
        SELECT team_id, project_id, min(number) AS first, row_number() OVER (PARTITION BY team_id ORDER BY min(number)) AS turn
        FROM (SELECT * FROM commonplace.search_work ORDER BY number LIMIT 10000) AS hints
        GROUP BY team_id, project_id ORDER BY turn, first LIMIT p_limit) AS due
$$;

-- What the keeper finds in a project: {"hints": their numbers, "rebuilds": whether it is built anew, "tails": {owner: how many
-- wait by their weight, of the first 5000}, "indexes": [{"number", "hasLiving", "hasDead", "segments": [[segment, level]] in
-- ascending order}]}.
CREATE FUNCTION commonplace.search_state_v1(p_team_id uuid, p_project_id uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (WITH RECURSIVE owner AS (
        (SELECT owner_actor FROM commonplace.search_tail WHERE team_id = p_team_id AND project_id = p_project_id
            ORDER BY owner_actor LIMIT 1)
        UNION ALL
        SELECT next.owner_actor FROM owner o CROSS JOIN LATERAL (SELECT owner_actor FROM commonplace.search_tail
            WHERE team_id = p_team_id AND project_id = p_project_id AND owner_actor > o.owner_actor
            ORDER BY owner_actor LIMIT 1) AS next)
    SELECT jsonb_build_object(
        'hints', (SELECT coalesce(jsonb_agg(number), '[]') FROM (SELECT number FROM commonplace.search_work
            WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NULL LIMIT 10000) AS given),
        'rebuilds', EXISTS (SELECT FROM commonplace.search_work
            WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NOT NULL),
        'tails', (SELECT coalesce(jsonb_object_agg(o.owner_actor, (
            SELECT sum(commonplace.search_weight(terms)) FROM (SELECT terms FROM commonplace.search_tail WHERE team_id = p_team_id
                AND project_id = p_project_id AND owner_actor = o.owner_actor LIMIT 5000) AS waiting)), '{}') FROM owner o),
        'indexes', (SELECT coalesce(jsonb_agg(jsonb_build_object('number', i.number,
            'hasLiving', EXISTS (SELECT FROM commonplace.search_documents WHERE team_id = p_team_id AND index_no = i.number),
            'hasDead', EXISTS (SELECT FROM commonplace.search_purges WHERE team_id = p_team_id AND index_no = i.number),
            'segments', (SELECT coalesce(jsonb_agg(jsonb_build_array(segment, level) ORDER BY segment), '[]')
                FROM commonplace.search_segments WHERE team_id = p_team_id AND index_no = i.number))), '[]')
            FROM commonplace.search_indexes i WHERE i.team_id = p_team_id AND i.project_id = p_project_id)));
END
$$;

-- The indexes of a project in which postings of dead documents are left.
CREATE FUNCTION commonplace.dead_indexes_v1(p_team_id uuid, p_project_id uuid) RETURNS integer[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN ARRAY(SELECT i.number FROM commonplace.search_indexes i
        CROSS JOIN LATERAL (SELECT FROM commonplace.search_purges p WHERE p.team_id = p_team_id AND p.index_no = i.number LIMIT 1) AS dead
        WHERE i.team_id = p_team_id AND i.project_id = p_project_id);
END
$$;

-- Puts the postings of the segments p_first to p_last together as p_first, those of the next p_terms words after p_after. The last of
-- these words; NULL: that were all, and the segments are one of the next level. Whoever calls this holds the project's index.
CREATE FUNCTION commonplace.compact_index_v1(p_team_id uuid, p_index integer, p_first integer, p_last integer, p_after bigint,
    p_terms integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    upto integer;
BEGIN
    PERFORM FROM commonplace.search_indexes WHERE team_id = p_team_id AND number = p_index FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT max(term) INTO upto FROM (SELECT DISTINCT term FROM commonplace.search_postings
        WHERE team_id = p_team_id AND index_no = p_index AND term > p_after AND segment > p_first AND segment <= p_last
        ORDER BY term LIMIT p_terms) AS next;
    IF upto IS NOT NULL THEN
        WITH parts AS (
            DELETE FROM commonplace.search_postings WHERE team_id = p_team_id AND index_no = p_index
                AND term > p_after AND term <= upto AND segment >= p_first AND segment <= p_last
            RETURNING term, segment, data)
        INSERT INTO commonplace.search_postings (index_no, term, segment, team_id, data)
        SELECT p_index, term, p_first, p_team_id, string_agg(data, '' ORDER BY segment) FROM parts GROUP BY term;
        RETURN upto;
    END IF;
    UPDATE commonplace.search_segments SET level = level + 1, documents = (SELECT sum(documents) FROM commonplace.search_segments
            WHERE team_id = p_team_id AND index_no = p_index AND segment >= p_first AND segment <= p_last)
        WHERE team_id = p_team_id AND index_no = p_index AND segment = p_first AND EXISTS (SELECT FROM commonplace.search_segments
            WHERE team_id = p_team_id AND index_no = p_index AND segment > p_first AND segment <= p_last);
    DELETE FROM commonplace.search_segments WHERE team_id = p_team_id AND index_no = p_index AND segment > p_first AND segment <= p_last;
    RETURN NULL;
END
$$;

-- Takes up to p_rows rows of an index away that has no document any more, the index last; whether there are more, NULL: it has
-- documents. Whoever calls this holds the project's index.
CREATE FUNCTION commonplace.drop_index_v1(p_team_id uuid, p_index integer, p_rows integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF EXISTS (SELECT FROM commonplace.search_documents WHERE team_id = p_team_id AND index_no = p_index) THEN
        RETURN NULL;
    END IF;
    DELETE FROM commonplace.search_postings WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.search_postings WHERE team_id = p_team_id AND index_no = p_index LIMIT p_rows));
    IF FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM commonplace.search_purges WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.search_purges WHERE team_id = p_team_id AND index_no = p_index LIMIT p_rows));
    IF FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM commonplace.search_sessions WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.search_sessions WHERE team_id = p_team_id AND index_no = p_index LIMIT p_rows));
    IF FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM commonplace.search_indexes WHERE team_id = p_team_id AND number = p_index;
    RETURN false;
END
$$;

-- The next p_limit memories of a project that is built anew go into the tail, their words read again. How many those were; 0: there
-- are no more, and from here on a search reads the index. An index that is to go first (0019) is a step of its own, which counts 1.
CREATE FUNCTION commonplace.rebuild_index_v1(p_team_id uuid, p_project_id uuid, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reached integer;
    slice uuid[];
    last integer;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT min(rebuild_from) INTO reached FROM (
        SELECT rebuild_from FROM commonplace.search_work
        WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NOT NULL FOR UPDATE) AS pending;
    IF reached < 0 THEN
        PERFORM commonplace.drop_indexes(p_team_id, p_project_id);
        RETURN 1;
    END IF;
    SELECT array_agg(id), max(number) INTO slice, last FROM (
        SELECT id, number FROM commonplace.memories WHERE team_id = p_team_id AND project_id = p_project_id AND number >= reached
        ORDER BY number LIMIT p_limit FOR NO KEY UPDATE) AS next;
    IF slice IS NULL THEN
        DELETE FROM commonplace.search_work WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NOT NULL;
        RETURN 0;
    END IF;
    UPDATE commonplace.memories SET content = content WHERE team_id = p_team_id AND id = ANY (slice)
        AND lexemes IS DISTINCT FROM commonplace.memory_lexemes(title, keywords, tags, content);
    INSERT INTO commonplace.search_tail (team_id, project_id, owner_actor, number, memory_id, session_id, terms)
    SELECT m.team_id, m.project_id, commonplace.search_owner(m.visibility, m.owner_actor), m.number, m.id, m.session_id,
        commonplace.search_terms(commonplace.search_lexemes(m.lexemes, m.owner_actor, m.metadata))
    FROM unnest(slice) AS given (id)
    CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = given.id OFFSET 0) AS m
    WHERE NOT EXISTS (SELECT FROM commonplace.search_documents d WHERE d.memory_id = m.id)
    ON CONFLICT DO NOTHING;
    UPDATE commonplace.search_work SET rebuild_from = last + 1
        WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NOT NULL;
    RETURN cardinality(slice);
END
$$;

-- As 0011 says, with {"projectId"}: whose index is to be purged at the end.
CREATE OR REPLACE FUNCTION commonplace.resume_erasure_v1(p_lease_seconds integer) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE commonplace.erasures SET lease_token = lease_token + 1, lease_until = now() + make_interval(secs => p_lease_seconds)
    WHERE id = (SELECT id FROM commonplace.erasures WHERE phase <> 'done' AND lease_until < now()
        ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING jsonb_build_object('teamId', team_id, 'projectId', project_id, 'erasureId', id, 'leaseToken', lease_token)
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.search_term(text),
    commonplace.search_terms(tsvector),
    commonplace.search_weight(bytea),
    commonplace.search_owner(text, text),
    commonplace.author_name(text, jsonb),
    commonplace.search_lexemes(tsvector, text, jsonb),
    commonplace.keep_index(),
    commonplace.drop_postings(),
    commonplace.search_work_v1(integer),
    commonplace.search_state_v1(uuid, uuid),
    commonplace.dead_indexes_v1(uuid, uuid),
    commonplace.compact_index_v1(uuid, integer, integer, integer, bigint, integer),
    commonplace.drop_index_v1(uuid, integer, integer),
    commonplace.rebuild_index_v1(uuid, uuid, integer)
TO commonplace_runtime;

CREATE TRIGGER keep_index_of_new AFTER INSERT ON commonplace.memories
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION commonplace.keep_index();
CREATE TRIGGER keep_index_of_changed AFTER UPDATE ON commonplace.memories
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION commonplace.keep_index();
CREATE TRIGGER keep_index_of_deleted AFTER DELETE ON commonplace.memories
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION commonplace.keep_index();
CREATE TRIGGER drop_postings AFTER DELETE ON commonplace.search_indexes
    FOR EACH ROW EXECUTE FUNCTION commonplace.drop_postings();

-- What is there already is indexed by the keeper, project by project; until then a search reads the project's rows as before.
INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from)
SELECT p.team_id, p.id, 0 FROM commonplace.projects p
WHERE EXISTS (SELECT FROM commonplace.memories m WHERE m.team_id = p.team_id AND m.project_id = p.id);
