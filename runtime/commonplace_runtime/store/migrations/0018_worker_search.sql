-- What claude-mem's tools search (0013), and what is forgotten by a query (0011), by the index of 0016.

-- The projects that names mean, NULL: all that the key reaches; 20 at most, those that wrote last. (SELECT … LIMIT 1) in place of
-- EXISTS, here and below: never a join that reads every memory's repositories.
CREATE FUNCTION commonplace.worker_projects(p_team_id uuid, p_key_project uuid, p_names text[]) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(id), '{}') FROM (
        SELECT p.id FROM commonplace.projects p
        CROSS JOIN LATERAL (SELECT m.number FROM commonplace.memories m
            WHERE m.team_id = p_team_id AND m.project_id = p.id ORDER BY m.number DESC LIMIT 1) AS last
        WHERE p.team_id = p_team_id AND (p_key_project IS NULL OR p.id = p_key_project)
            AND (p_names IS NULL OR p.name = ANY (p_names) OR (SELECT true FROM commonplace.memory_repositories r
                WHERE r.team_id = p_team_id AND r.project_id = p.id AND r.repository = ANY (p_names) LIMIT 1))
        ORDER BY last.number DESC LIMIT 20) AS named
$$;

-- search_parts of the projects that names mean.
CREATE FUNCTION commonplace.worker_parts_v1(p_team_id uuid, p_key_project uuid, p_actor text, p_names text[], p_query text)
RETURNS TABLE (part text, index_no integer, number integer, data bytea)
LANGUAGE plpgsql ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN QUERY SELECT * FROM commonplace.search_parts(p_team_id,
        commonplace.worker_projects(p_team_id, p_key_project, p_names), p_actor, p_query);
END
$$;

-- What answers p_query under the names, best first. p_docnos NULL: as worker_hits finds it in the rows, or without a query the
-- newest. Else the ranking of the index, as found_memories takes it: of each project 300 or of all 1,000 at most.
CREATE FUNCTION commonplace.worker_found(p_team_id uuid, p_key_project uuid, p_actor text, p_names text[], p_query text, p_platform text,
    p_indexes integer[], p_docnos integer[], p_scores real[], p_words text[], p_years integer[], p_months integer[])
RETURNS uuid[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    projects uuid[];
    named uuid[];
BEGIN
    IF p_docnos IS NULL OR commonplace.is_index_gone(p_team_id, p_indexes) THEN
        RETURN ARRAY(SELECT hit.id FROM commonplace.worker_hits(p_team_id, p_key_project, p_actor, p_names, p_query, p_platform) AS hit
            ORDER BY hit.place);
    END IF;
    projects := commonplace.worker_projects(p_team_id, p_key_project, p_names);
    named := ARRAY(SELECT id FROM commonplace.projects WHERE team_id = p_team_id AND name = ANY (p_names));
    RETURN ARRAY(
        SELECT f.memory_id
        FROM commonplace.found_memories(p_team_id, projects, p_actor, p_indexes, p_docnos, p_scores,
            least(300 * cardinality(projects), 1000), p_platform, p_words, p_years, p_months)
            WITH ORDINALITY AS f (memory_id, score, place)
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = f.memory_id OFFSET 0) AS m
        WHERE p_names IS NULL OR m.project_id = ANY (named) OR (SELECT true FROM commonplace.memory_repositories r
            WHERE r.team_id = p_team_id AND r.memory_id = f.memory_id AND r.repository = ANY (p_names) LIMIT 1)
        ORDER BY f.place);
END
$$;

-- worker_search_v1 (0013) of what worker_found finds.
CREATE FUNCTION commonplace.worker_search_v2(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_names text[], p_query text, p_platform text, p_kinds text[], p_no_kinds text[], p_from timestamptz, p_to timestamptz, p_order text,
    p_limit integer, p_offset integer, p_indexes integer[], p_docnos integer[], p_scores real[], p_words text[], p_years integer[],
    p_months integer[])
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid[];
    ids uuid[];
    total bigint;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    found := commonplace.worker_found(p_team_id, p_key_project, p_actor, p_names, p_query, p_platform, p_indexes, p_docnos, p_scores,
        p_words, p_years, p_months);
    WITH hits AS MATERIALIZED (
        SELECT m.id, row_number() OVER (ORDER BY
            CASE p_order WHEN 'date_desc' THEN -m.number WHEN 'date_asc' THEN m.number ELSE hit.place END) AS place
        FROM unnest(found) WITH ORDINALITY AS hit (id, place)
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = hit.id OFFSET 0) AS m
        WHERE (p_kinds IS NULL OR m.kind = ANY (p_kinds)) AND m.kind <> ALL (p_no_kinds)
            AND (p_from IS NULL OR m.created_at >= p_from) AND (p_to IS NULL OR m.created_at <= p_to))
    SELECT (SELECT count(*) FROM hits),
        (SELECT array_agg(id ORDER BY place) FROM (SELECT id, place FROM hits ORDER BY place LIMIT p_limit OFFSET p_offset) AS page)
    INTO total, ids;
    RETURN jsonb_build_object('total', total, 'memories', commonplace.worker_answer(p_team_id, p_key_id, p_key_project, p_actor,
        p_request_id, 'worker_search', ids, false,
        jsonb_build_object('query', p_query, 'projects', p_names, 'platformSource', p_platform, 'limit', p_limit)));
END
$$;

-- timeline_v1 (0013) round the best of what worker_found finds.
CREATE FUNCTION commonplace.timeline_v2(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_name text, p_query text, p_platform text, p_before integer, p_after integer, p_indexes integer[], p_docnos integer[],
    p_scores real[], p_words text[], p_years integer[], p_months integer[])
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid[];
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    found := commonplace.worker_found(p_team_id, p_key_project, p_actor, CASE WHEN p_name IS NOT NULL THEN ARRAY[p_name] END, p_query,
        p_platform, p_indexes, p_docnos, p_scores, p_words, p_years, p_months);
    -- An anchor that names nothing: without one, timeline_v1 would look for the query itself.
    RETURN commonplace.timeline_v1(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, p_name, coalesce(found[1]::text, ''),
        p_query, p_platform, p_before, p_after);
END
$$;

-- What is forgotten by a query, at most p_limit: what recall_v2 finds, in its order, and nothing that was found by its neighbours or
-- by a hash: each has one of the words as it stands now, or has superseded one that has. p_ranking: {"indexes", "docnos", "scores",
-- "names", "years", "months"} as found_memories takes them, NULL: the words are looked for in the rows.
CREATE FUNCTION commonplace.forgotten_by_query(p_team_id uuid, p_project_id uuid, p_actor text, p_query text, p_limit integer,
    p_ranking jsonb)
RETURNS SETOF uuid LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    words tsquery;
    told record;
    named record;
BEGIN
    IF p_ranking -> 'docnos' IS NULL OR commonplace.is_index_gone(p_team_id,
            ARRAY(SELECT jsonb_array_elements_text(p_ranking -> 'indexes')::integer)) THEN
        RETURN QUERY SELECT r.memory_id
            FROM commonplace.ranked_memories(p_team_id, p_project_id, p_actor, p_query, p_limit, NULL) AS r;
        RETURN;
    END IF;
    SELECT string_agg('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery INTO words
    FROM unnest(commonplace.question_words(p_query)) AS word;
    SELECT coalesce(array_agg(c.index_no ORDER BY c.place), '{}') AS indexes, coalesce(array_agg(c.docno ORDER BY c.place), '{}') AS docnos,
        coalesce(array_agg(c.score ORDER BY c.place), '{}') AS scores INTO told
    FROM (
        SELECT place, (p_ranking -> 'indexes' -> place)::integer AS index_no, (p_ranking -> 'docnos' -> place)::integer AS docno,
            (p_ranking -> 'scores' -> place)::real AS score
        FROM generate_series(0, jsonb_array_length(p_ranking -> 'docnos') - 1) AS place) AS c
    CROSS JOIN LATERAL (
        SELECT d.memory_id AS id FROM commonplace.search_documents d
        WHERE c.index_no > 0 AND d.index_no = c.index_no AND d.docno = c.docno AND d.team_id = p_team_id
        UNION ALL
        (SELECT w.id FROM commonplace.memories w
        WHERE c.index_no = 0 AND w.team_id = p_team_id AND w.number BETWEEN c.docno AND c.docno ORDER BY w.number DESC LIMIT 1)
        OFFSET 0) AS document
    CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = document.id OFFSET 0) AS m
    WHERE m.lexemes @@ words;
    SELECT ARRAY(SELECT jsonb_array_elements_text(p_ranking -> 'names')) AS words,
        ARRAY(SELECT jsonb_array_elements_text(p_ranking -> 'years')::integer) AS years,
        ARRAY(SELECT jsonb_array_elements_text(p_ranking -> 'months')::integer) AS months INTO named;
    RETURN QUERY SELECT f.memory_id FROM commonplace.found_memories(p_team_id, ARRAY[p_project_id], p_actor, told.indexes, told.docnos,
        told.scores, p_limit, NULL, named.words, named.years, named.months) AS f;
END
$$;

-- begin_erasure_v1 of 0011 with one line changed; p_asked may have "ranking" beside a query.
DO $$
DECLARE
    body text := pg_get_functiondef('commonplace.begin_erasure_v1(uuid, uuid, uuid, text, text, jsonb)'::regprocedure);
    before text := 'commonplace.ranked_memories(p_team_id, e.project_id, p_actor, value, (p_asked ->> ''limit'')::integer, NULL)';
    after text := 'commonplace.forgotten_by_query(p_team_id, e.project_id, p_actor, value, (p_asked ->> ''limit'')::integer,'
        ' p_asked -> ''ranking'') AS f (memory_id)';
BEGIN
    IF strpos(body, before) = 0 THEN
        RAISE EXCEPTION 'begin_erasure_v1 is not the function of 0011';
    END IF;
    EXECUTE replace(body, before, after);
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.worker_projects(uuid, uuid, text[]),
    commonplace.worker_parts_v1(uuid, uuid, text, text[], text),
    commonplace.worker_found(uuid, uuid, text, text[], text, text, integer[], integer[], real[], text[], integer[], integer[]),
    commonplace.worker_search_v2(uuid, uuid, uuid, text, text, text[], text, text, text[], text[], timestamptz, timestamptz, text,
        integer, integer, integer[], integer[], real[], text[], integer[], integer[]),
    commonplace.timeline_v2(uuid, uuid, uuid, text, text, text, text, text, integer, integer, integer[], integer[], real[], text[],
        integer[], integer[]),
    commonplace.forgotten_by_query(uuid, uuid, text, text, integer, jsonb)
TO commonplace_runtime;
