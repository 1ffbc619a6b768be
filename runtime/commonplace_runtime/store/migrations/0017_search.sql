-- Search by the index of 0016: one statement reads the postings of a question's words, the caller ranks them, one more reads the rows.

-- Words as people type them who have other keys: without accents, ё as е, ß as ss, full-width letters as the usual ones. й stays,
-- for stems end in it. What is all ASCII, as most is, costs nothing.
CREATE FUNCTION commonplace.plain_letters(words text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(words) = length(words) THEN words ELSE replace(translate(normalize(translate(normalize(words, NFKD),
    U&'\0300\0301\0302\0303\0304\0307\0308\030a\030b\030c\0327\0328', ''), NFC), 'øØłŁđĐıăĂğĞ', 'oOlLdDiaAgG'), 'ß', 'ss') END;

-- The parts of fooBar, HTTPError, foo_bar and path/to/file.ts as words of their own; of <Foo> and &foo; too, which Postgres takes for
-- markup that says nothing. Chinese, Japanese and Korean have no spaces between words: each of their characters is a word.
-- Memories of before get these words when their project is built anew.
CREATE OR REPLACE FUNCTION commonplace.split_identifiers(words text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(regexp_replace(translate(commonplace.plain_letters(words), '_./\:-@#<>&', '           '),
    '(?<=[[:lower:][:digit:]])(?=[[:upper:]])|(?<=[[:upper:]])(?=[[:upper:]][[:lower:]])', ' ', 'g'),
    '([\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])', ' \1 ', 'g');

-- As 0001 says, the parts of keywords and tags beside those of title and content. The Russian configuration has English stems for
-- words of ASCII letters, as the English one, and Russian stems for others.
CREATE OR REPLACE FUNCTION commonplace.memory_lexemes(title text, keywords text[], tags text[], content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN setweight(to_tsvector('pg_catalog.english', left(coalesce(title, ''), 2000)), 'A')
    || setweight(to_tsvector('pg_catalog.english', left(array_to_string(keywords || tags, ' '), 4000)), 'B')
    || setweight(to_tsvector('pg_catalog.english', left(content, 60000)), 'C')
    || setweight(to_tsvector('pg_catalog.russian', commonplace.split_identifiers(left(coalesce(title, '') || ' '
        || left(array_to_string(keywords || tags, ' '), 4000) || ' ' || content, 60000))), 'D');

-- The words of a question, as memory_lexemes has them.
CREATE FUNCTION commonplace.question_words(p_query text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tsvector_to_array(to_tsvector('pg_catalog.english', left(p_query, 4000))
    || to_tsvector('pg_catalog.russian', commonplace.split_identifiers(left(p_query, 4000))));

-- ranked_memories of 0015 for these words.
DO $$
DECLARE
    body text := pg_get_functiondef('commonplace.ranked_memories(uuid, uuid, text, text, integer, text)'::regprocedure);
    before text := 'tsvector_to_array(to_tsvector(''pg_catalog.english'',
            left(p_query, 4000) || '' '' || commonplace.split_identifiers(left(p_query, 4000))))';
BEGIN
    IF strpos(body, before) = 0 THEN
        RAISE EXCEPTION 'ranked_memories is not the function of 0015';
    END IF;
    EXECUTE replace(body, before, 'commonplace.question_words(p_query)');
END
$$;

-- What a search reads before it ranks, as rows (part, index_no, number, data), 0 and empty where they say nothing:
--   words:  data = the terms of the question that are asked for, int4 each
--   size:   number = documents of index_no, those included that are gone and not purged yet
--   dead:   data = the documents of index_no that are gone and not purged yet, int4 each, ascending
--   list:   number = a term, data = its postings in one segment of index_no
--   tail:   data = for each waiting memory its number, how many terms it has and a number of its session (0: none), int4 each
--   terms:  data = the terms of those memories, one after the other, as search_terms packs them
--   rows:   the index cannot be asked (it is being built, or too much waits): read the rows themselves
-- Where their lists may have ten times what rank takes (MOST_POSTINGS), only those words are read that it takes, one at least: to
-- look before each search how long they are would cost it a tenth.
-- p_projects: more than one for those who ask under a repository's name. STABLE: one snapshot, beside merges. It plans once (SET):
-- planning for the arrays of each question anew took half of its time.
CREATE FUNCTION commonplace.search_parts(p_team_id uuid, p_projects uuid[], p_actor text, p_query text)
RETURNS TABLE (part text, index_no integer, number integer, data bytea)
LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    words integer[] := ARRAY(SELECT DISTINCT commonplace.search_term(word)
        FROM unnest(commonplace.question_words(p_query)) AS word LIMIT 256);
    indexes integer[] := ARRAY(SELECT i.number FROM commonplace.search_indexes i
        WHERE i.team_id = p_team_id AND i.project_id = ANY (p_projects) AND i.owner_actor IN ('', p_actor));
BEGIN
    IF EXISTS (SELECT FROM commonplace.search_work w WHERE w.team_id = p_team_id AND w.project_id = ANY (p_projects)
            AND w.rebuild_from IS NOT NULL)
        OR 2000 < (SELECT sum(commonplace.search_weight(terms)) FROM (SELECT t.terms FROM commonplace.search_tail t
            WHERE t.team_id = p_team_id AND t.project_id = ANY (p_projects) AND t.owner_actor IN ('', p_actor)
            LIMIT 2001) AS waiting) THEN
        RETURN QUERY SELECT 'rows', 0, 0, ''::bytea;
        RETURN;
    END IF;
    IF 600000 < cardinality(words) * (SELECT sum(s.documents) FROM unnest(indexes) AS i CROSS JOIN LATERAL (
            SELECT g.documents FROM commonplace.search_segments g WHERE g.index_no = i AND g.team_id = p_team_id OFFSET 0) AS s) THEN
        words := ARRAY(
            SELECT word FROM (SELECT word, size, sum(size) OVER (ORDER BY size, word) AS upto FROM (
                SELECT word, coalesce(sum(octet_length(p.data) / 4), 0) AS size FROM unnest(words) AS word
                LEFT JOIN LATERAL (SELECT l.data FROM unnest(indexes) AS i CROSS JOIN LATERAL (SELECT * FROM commonplace.search_postings l
                    WHERE l.index_no = i AND l.term = word AND l.team_id = p_team_id OFFSET 0) AS l) AS p ON true
                GROUP BY word) AS counted) AS rarest
            WHERE upto <= 60000 OR upto = size);
    END IF;
    RETURN QUERY
    SELECT 'words', 0, 0, (SELECT coalesce(string_agg(int4send(word), ''), '') FROM unnest(words) AS word)
    UNION ALL
    SELECT 'size', s.index_no, sum(s.documents)::integer, ''
        FROM unnest(indexes) AS i CROSS JOIN LATERAL (SELECT * FROM commonplace.search_segments s
            WHERE s.index_no = i AND s.team_id = p_team_id OFFSET 0) AS s GROUP BY s.index_no
    UNION ALL
    SELECT 'dead', g.index_no, 0, string_agg(int4send(g.docno), '' ORDER BY g.docno)
        FROM unnest(indexes) AS i CROSS JOIN LATERAL (SELECT * FROM commonplace.search_purges g
            WHERE g.index_no = i AND g.team_id = p_team_id OFFSET 0) AS g GROUP BY g.index_no
    UNION ALL
    SELECT 'list', p.index_no, p.term, p.data
        FROM unnest(indexes) AS i CROSS JOIN LATERAL (SELECT * FROM commonplace.search_postings p
            WHERE p.index_no = i AND p.term = ANY (words) AND p.team_id = p_team_id OFFSET 0) AS p
    UNION ALL
    (WITH waiting AS MATERIALIZED (
        SELECT t.number, t.session_id, t.terms FROM commonplace.search_tail t
        WHERE t.team_id = p_team_id AND t.project_id = ANY (p_projects) AND t.owner_actor IN ('', p_actor) ORDER BY t.number)
    SELECT 'tail', 0, 0, coalesce(string_agg(int4send(w.number) || int4send(octet_length(w.terms) / 6)
        || int4send(coalesce(hashtext(w.session_id::text) | 1, 0)), ''), '') FROM waiting w
    UNION ALL
    SELECT 'terms', 0, 0, coalesce(string_agg(w.terms, ''), '') FROM waiting w);
END
$$;

-- The same for one project: p_project is an id or a name, NULL the key's own. No rows: the team has no such project.
CREATE FUNCTION commonplace.search_parts_v1(p_team_id uuid, p_key_project uuid, p_actor text, p_project text, p_query text)
RETURNS TABLE (part text, index_no integer, number integer, data bytea)
LANGUAGE plpgsql ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    IF meant IS NOT NULL THEN
        RETURN QUERY SELECT * FROM commonplace.search_parts(p_team_id, ARRAY[meant], p_actor, p_query);
    END IF;
END
$$;

-- Whether one of those indexes was taken away (0019) since its postings were read: its documents went with it.
CREATE FUNCTION commonplace.is_index_gone(p_team_id uuid, p_indexes integer[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM (SELECT DISTINCT unnest(p_indexes) AS number) AS asked WHERE number > 0
        AND NOT EXISTS (SELECT FROM commonplace.search_indexes i WHERE i.team_id = p_team_id AND i.number = asked.number))
$$;

-- The memories behind documents, best first: p_indexes, p_docnos and p_scores stand in the order of the ranking; of index 0 the docno
-- is a memory's number. Whoever was superseded counts for the successor; importance is worth a twentieth more or less, being new a
-- twentieth more. p_names: the question's words in lower case; a single author among them is worth a quarter of the best score.
-- p_years and p_months: what the question names; a memory of that time is worth two fifths of the best score, and is looked for
-- further down. Where these figures come from: docs/decisions/0067-search-index.md.
-- A number is looked for as a range and in order: equal to it, a plan of an empty table would go through all of the team by another
-- index. And an id by a column: under a policy no index is used for COALESCE, which might leak.
CREATE FUNCTION commonplace.found_memories(p_team_id uuid, p_projects uuid[], p_actor text, p_indexes integer[], p_docnos integer[],
    p_scores real[], p_limit integer, p_platform text, p_names text[], p_years integer[], p_months integer[])
RETURNS TABLE (memory_id uuid, score double precision) LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_dated boolean := cardinality(p_years) + cardinality(p_months) > 0;
    slice integer := greatest(CASE WHEN is_dated THEN 100 ELSE 40 END, 2 * p_limit);
    reached integer := 0;
    ids uuid[] := '{}';
    worths double precision[] := '{}';
    more_ids uuid[];
    more_worths double precision[];
BEGIN
    WHILE reached < cardinality(p_docnos) AND cardinality(ids) < p_limit LOOP
        WITH RECURSIVE candidate AS MATERIALIZED (
            SELECT m.id, m.superseded_by, m.project_id, m.visibility, m.created_at, m.importance, c.score,
                commonplace.author_name(m.owner_actor, m.metadata) AS author
            FROM unnest(p_indexes[reached + 1:reached + slice], p_docnos[reached + 1:reached + slice],
                p_scores[reached + 1:reached + slice]) AS c (index_no, docno, score)
            CROSS JOIN LATERAL (
                SELECT d.memory_id AS id FROM commonplace.search_documents d
                WHERE c.index_no > 0 AND d.index_no = c.index_no AND d.docno = c.docno AND d.team_id = p_team_id
                UNION ALL
                (SELECT w.id FROM commonplace.memories w
                WHERE c.index_no = 0 AND w.team_id = p_team_id AND w.number BETWEEN c.docno AND c.docno ORDER BY w.number DESC LIMIT 1)
                OFFSET 0) AS document
            CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = document.id OFFSET 0) AS m
            WHERE m.project_id = ANY (p_projects) AND (m.visibility = 'team' OR m.owner_actor = p_actor)
                AND (p_platform IS NULL OR commonplace.is_from_platform(p_team_id, m.id, m.session_id, p_platform))
        ), author AS MATERIALIZED (
            SELECT min(author) AS named FROM (SELECT DISTINCT author FROM candidate) AS a
            WHERE author = ANY (p_names) OR string_to_array(translate(author, '._-', '   '), ' ') && p_names HAVING count(*) = 1
        ), chain AS (
            SELECT c.id, c.superseded_by, 0 AS depth,
                c.score * (1 + 0.1 * (c.importance - 0.5) + 0.05 * exp(extract(epoch FROM c.created_at - now())::float8 / 2592000))
                + p_scores[1] * (CASE WHEN c.author = (SELECT a.named FROM author a) THEN 0.25 ELSE 0 END
                    + CASE WHEN is_dated
                        AND (p_years = '{}' OR extract(year FROM c.created_at)::integer = ANY (p_years))
                        AND (p_months = '{}' OR extract(month FROM c.created_at)::integer = ANY (p_months)) THEN 0.4 ELSE 0 END) AS worth
            FROM candidate c
            UNION ALL
            SELECT m.id, m.superseded_by, c.depth + 1, c.worth
            FROM chain c
            CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = c.superseded_by OFFSET 0) AS m
            WHERE c.depth < 20 AND c.superseded_by IS NOT NULL
                AND m.project_id = ANY (p_projects) AND (m.visibility = 'team' OR m.owner_actor = p_actor)
        )
        SELECT array_agg(id ORDER BY worth DESC, id DESC), array_agg(worth ORDER BY worth DESC, id DESC) INTO more_ids, more_worths
        FROM (SELECT id, max(worth) AS worth FROM chain WHERE superseded_by IS NULL AND id <> ALL (ids) GROUP BY id) AS living;
        ids := ids || coalesce(more_ids, '{}');
        worths := worths || coalesce(more_worths, '{}');
        reached := reached + slice;
        slice := least(2 * slice, 1000);
    END LOOP;
    RETURN QUERY SELECT ids[place], worths[place] FROM generate_series(1, least(p_limit, cardinality(ids))) AS place;
END
$$;

-- Recall, as 0015 says, as rows, best first. p_docnos NULL: the words are looked for in the rows; else the ranking of the index, as
-- found_memories takes it. metadata and sources are JSON as text (sources NULL: none), times epoch milliseconds.
-- Whatever the planner knows of a table, it reads indexes, those of the newest in their order (SET enable_…), and plans once.
CREATE FUNCTION commonplace.recall_v2(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_mode text, p_project text, p_query text, p_limit integer, p_platform text, p_via text,
    p_indexes integer[], p_docnos integer[], p_scores real[], p_names text[], p_years integer[], p_months integer[])
RETURNS TABLE (id text, project_id text, session_id text, kind text, title text, content text, metadata text, sources text,
    score double precision, created_ms bigint, updated_ms bigint)
LANGUAGE plpgsql ROWS 20 SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    team text := set_config('app.team_id', p_team_id::text, true);
    meant uuid := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    ids uuid[];
    worths double precision[];
BEGIN
    IF p_query IS NULL THEN
        ids := ARRAY(
            SELECT m.id FROM commonplace.memories m
            WHERE m.team_id = p_team_id AND m.project_id = meant AND (m.visibility = 'team' OR m.owner_actor = p_actor)
                AND m.superseded_by IS NULL
                AND (p_platform IS NULL OR commonplace.is_from_platform(p_team_id, m.id, m.session_id, p_platform))
            ORDER BY m.number DESC LIMIT p_limit);
    ELSE
        SELECT array_agg(f.memory_id), array_agg(f.score) INTO ids, worths
        FROM commonplace.found_memories(p_team_id, ARRAY[meant], p_actor, p_indexes, p_docnos, p_scores, p_limit, p_platform,
            p_names, p_years, p_months) f;
        -- Looked for only now: what is still there was there a moment ago.
        IF p_docnos IS NULL OR commonplace.is_index_gone(p_team_id, p_indexes) THEN
            SELECT array_agg(r.memory_id), array_agg(r.score) INTO ids, worths
            FROM commonplace.ranked_memories(p_team_id, meant, p_actor, p_query, p_limit, p_platform) r;
        END IF;
    END IF;
    RETURN QUERY
    WITH hit AS (
        SELECT listed.place, m.*, sum(octet_length(m.content) + 4 * pg_column_size(m.metadata)) OVER (ORDER BY listed.place) AS bytes
        FROM unnest(ids) WITH ORDINALITY AS listed (id, place)
        CROSS JOIN LATERAL (
            SELECT w.id, w.project_id, w.session_id, w.kind, w.title, w.content, w.metadata, w.created_at, w.updated_at
            FROM commonplace.memories w WHERE w.team_id = p_team_id AND w.id = listed.id OFFSET 0) AS m
    ), shown AS MATERIALIZED (
        SELECT * FROM hit WHERE place = 1 OR bytes <= 8000000
    ), audited AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
        SELECT p_team_id, meant, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
            jsonb_build_object('mode', p_mode, 'limit', p_limit, 'resultCount', count(*),
                'observationIds', coalesce(jsonb_agg(s.id ORDER BY s.place), '[]'), 'requestId', p_request_id)
            || CASE WHEN p_query IS NULL AND p_platform IS NULL AND p_via IS NULL THEN '{}'
                ELSE jsonb_strip_nulls(jsonb_build_object('query', p_query, 'platformSource', p_platform, 'via', p_via)) END
        FROM shown s
    )
    SELECT s.id::text, s.project_id::text, s.session_id::text, s.kind, s.title, s.content, s.metadata::text,
        (SELECT jsonb_agg(jsonb_build_object('sourceType', o.source_type, 'sourceId', o.source_id) ORDER BY o.created_at, o.source_id)
            FROM commonplace.memory_sources o WHERE o.team_id = p_team_id AND o.memory_id = s.id)::text,
        worths[s.place], floor(extract(epoch FROM s.created_at) * 1000)::bigint, floor(extract(epoch FROM s.updated_at) * 1000)::bigint
    FROM shown s ORDER BY s.place;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.plain_letters(text),
    commonplace.question_words(text),
    commonplace.search_parts(uuid, uuid[], text, text),
    commonplace.search_parts_v1(uuid, uuid, text, text, text),
    commonplace.is_index_gone(uuid, integer[]),
    commonplace.found_memories(uuid, uuid[], text, integer[], integer[], real[], integer, text, text[], integer[], integer[]),
    commonplace.recall_v2(uuid, uuid, uuid, text, text, text, text, text, integer, text, text, integer[], integer[], real[], text[],
        integer[], integer[])
TO commonplace_runtime;
