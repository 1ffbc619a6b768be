-- What claude-mem's hooks and tools read from their local worker: they know repositories by their local names, files by their
-- paths and memories by their numbers. One projectId may hold every repository of a machine, so a name means: the project of
-- that name, and whatever of other projects says that it comes from a repository of that name.
-- Names and paths have tables of their own, because only equality of plain columns uses an index under a policy.
-- Locks against writes: memories, memory_sources

CREATE TABLE commonplace.memory_files (
    team_id    uuid NOT NULL,
    project_id uuid NOT NULL,
    memory_id  uuid NOT NULL,
    number     integer NOT NULL,
    name       text NOT NULL,
    path       text NOT NULL
);
COMMENT ON TABLE commonplace.memory_files IS 'The files that a memory says were read or modified; kept by index_memory().';
COMMENT ON COLUMN commonplace.memory_files.name IS 'The last part of the path: what is looked up.';

CREATE TABLE commonplace.memory_repositories (
    team_id    uuid NOT NULL,
    project_id uuid NOT NULL,
    memory_id  uuid NOT NULL,
    number     integer NOT NULL,
    repository text NOT NULL
);
COMMENT ON TABLE commonplace.memory_repositories IS
    'Local names of the repository that a memory is about: its own, its session''s, and those of the folders that its events came from.';

DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['memory_files', 'memory_repositories'] LOOP
        EXECUTE format('ALTER TABLE commonplace.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY team_only ON commonplace.%I TO commonplace_runtime '
            'USING (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid)) '
            'WITH CHECK (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid))', tenant_table);
        EXECUTE format('CREATE POLICY owner_all ON commonplace.%I TO commonplace_owner USING (true) WITH CHECK (true)', tenant_table);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, DELETE ON commonplace.memory_files, commonplace.memory_repositories TO commonplace_runtime;

-- The paths that a memory's metadata names, in either spelling, 200 at most; one that is too long for an index is nobody's.
CREATE FUNCTION commonplace.paths_of(p_metadata jsonb) RETURNS SETOF text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT path FROM (
        SELECT regexp_replace(rtrim(translate(btrim(listed #>> '{}'), '\', '/'), '/'), '^(\./)+', '') AS path
        FROM unnest(ARRAY['files_read', 'files_modified', 'filesRead', 'filesModified']) AS field
        CROSS JOIN LATERAL jsonb_array_elements(
            CASE WHEN jsonb_typeof(p_metadata -> field) = 'array' THEN p_metadata -> field ELSE '[]' END) AS listed
        WHERE jsonb_typeof(listed) = 'string' AND octet_length(listed #>> '{}') <= 1024) AS tidied
    WHERE path <> '' LIMIT 200
$$;

-- What the client calls the repository of a folder: its name, or as a worktree parent/name.
CREATE FUNCTION commonplace.repositories_of(p_folder text) RETURNS SETOF text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tidied AS (SELECT rtrim(translate(p_folder, '\', '/'), '/') AS folder WHERE octet_length(p_folder) <= 4096)
    SELECT name FROM (
        SELECT substring(folder FROM '[^/]+$') AS name FROM tidied
        UNION SELECT substring(folder FROM '[^/]+/[^/]+$') FROM tidied) AS named
    WHERE length(name) <= 200
$$;

CREATE FUNCTION commonplace.index_memory() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM commonplace.memory_files WHERE team_id = NEW.team_id AND memory_id = NEW.id;
    END IF;
    INSERT INTO commonplace.memory_files (team_id, project_id, memory_id, number, name, path)
    SELECT NEW.team_id, NEW.project_id, NEW.id, NEW.number, regexp_replace(path, '^.*/', ''), path
    FROM commonplace.paths_of(NEW.metadata) AS path;
    INSERT INTO commonplace.memory_repositories (team_id, project_id, memory_id, number, repository)
    SELECT NEW.team_id, NEW.project_id, NEW.id, NEW.number, repository FROM (
        SELECT NEW.metadata ->> 'project' AS repository
        UNION SELECT metadata ->> 'project' FROM commonplace.sessions WHERE team_id = NEW.team_id AND id = NEW.session_id) AS named
    WHERE length(repository) BETWEEN 1 AND 200
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION commonplace.index_memory_source() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO commonplace.memory_repositories (team_id, project_id, memory_id, number, repository)
    SELECT m.team_id, m.project_id, m.id, m.number, repository
    FROM commonplace.events e
        JOIN commonplace.memories m ON m.team_id = NEW.team_id AND m.id = NEW.memory_id
        CROSS JOIN LATERAL commonplace.repositories_of(e.payload ->> 'cwd') AS repository
    WHERE e.team_id = NEW.team_id AND e.id = NEW.event_id
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

GRANT EXECUTE ON FUNCTION commonplace.paths_of(jsonb), commonplace.repositories_of(text), commonplace.index_memory(),
    commonplace.index_memory_source() TO commonplace_runtime;

-- Before the rows that are there: from here on nobody adds one that is not indexed.
CREATE TRIGGER index_memory AFTER INSERT ON commonplace.memories FOR EACH ROW EXECUTE FUNCTION commonplace.index_memory();
CREATE TRIGGER index_memory_again AFTER UPDATE OF metadata ON commonplace.memories FOR EACH ROW
    WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION commonplace.index_memory();
CREATE TRIGGER index_memory_source AFTER INSERT ON commonplace.memory_sources FOR EACH ROW
    WHEN (NEW.event_id IS NOT NULL) EXECUTE FUNCTION commonplace.index_memory_source();

INSERT INTO commonplace.memory_files (team_id, project_id, memory_id, number, name, path)
SELECT m.team_id, m.project_id, m.id, m.number, regexp_replace(path, '^.*/', ''), path
FROM commonplace.memories m CROSS JOIN LATERAL commonplace.paths_of(m.metadata) AS path;
INSERT INTO commonplace.memory_repositories (team_id, project_id, memory_id, number, repository)
SELECT m.team_id, m.project_id, m.id, m.number, repository FROM (
    SELECT id, metadata ->> 'project' AS repository FROM commonplace.memories
    UNION SELECT m.id, s.metadata ->> 'project'
        FROM commonplace.memories m JOIN commonplace.sessions s ON s.team_id = m.team_id AND s.id = m.session_id
    UNION SELECT ms.memory_id, folder.repository
        FROM commonplace.memory_sources ms JOIN commonplace.events e ON e.team_id = ms.team_id AND e.id = ms.event_id
        CROSS JOIN LATERAL commonplace.repositories_of(e.payload ->> 'cwd') AS folder (repository)) AS named
    JOIN commonplace.memories m USING (id)
WHERE length(repository) BETWEEN 1 AND 200;

-- After the rows that are there, which takes a third of the time; the keys last, by which references are checked.
CREATE INDEX memory_files_by_name ON commonplace.memory_files (team_id, project_id, name, number DESC);
CREATE INDEX memory_repositories_newest ON commonplace.memory_repositories (team_id, project_id, repository, number DESC);
ALTER TABLE commonplace.memory_files ADD PRIMARY KEY (team_id, memory_id, path),
    ADD FOREIGN KEY (team_id, memory_id) REFERENCES commonplace.memories (team_id, id) ON DELETE CASCADE;
ALTER TABLE commonplace.memory_repositories ADD PRIMARY KEY (team_id, memory_id, repository),
    ADD FOREIGN KEY (team_id, memory_id) REFERENCES commonplace.memories (team_id, id) ON DELETE CASCADE;

-- The newest memories under any of the names, NULL: under all; newest first, none that was superseded. With a platform, those
-- of the newest 2,000 of each name whose session, or without one whose source events, are not known to come from another.
-- ROWS keeps whoever joins this from reading all memories; a SQL function in place of a sub-select would cost 0.1 ms a row.
CREATE FUNCTION commonplace.named_memories(p_team_id uuid, p_key_project uuid, p_actor text, p_names text[], p_platform text,
    p_limit integer)
RETURNS TABLE (memory_id uuid, number integer) LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
    WITH reach AS MATERIALIZED (
        SELECT id, name FROM commonplace.projects WHERE team_id = p_team_id AND (p_key_project IS NULL OR id = p_key_project)
    ), ways AS (
        SELECT id AS project_id, NULL AS repository FROM reach WHERE p_names IS NULL OR name = ANY (p_names)
        UNION ALL SELECT id, wanted FROM reach CROSS JOIN unnest(p_names) AS wanted WHERE name <> ALL (p_names))
    SELECT DISTINCT newest.id, newest.number FROM ways CROSS JOIN LATERAL (
        SELECT seen.id, seen.number FROM (
            (SELECT m.id, m.number, m.session_id FROM commonplace.memories m
            WHERE ways.repository IS NULL AND m.team_id = p_team_id AND m.project_id = ways.project_id
                AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY m.number DESC LIMIT 2000)
            UNION ALL
            (SELECT m.id, r.number, m.session_id FROM commonplace.memory_repositories r
                JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = r.memory_id
            WHERE r.team_id = p_team_id AND r.project_id = ways.project_id AND r.repository = ways.repository
                AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY r.number DESC LIMIT 2000)) AS seen
        WHERE p_platform IS NULL OR coalesce(
            (SELECT s.platform_source = p_platform FROM commonplace.sessions s WHERE s.team_id = p_team_id AND s.id = seen.session_id),
            (SELECT bool_or(e.platform_source = p_platform) FROM commonplace.memory_sources ms
                JOIN commonplace.events e ON e.team_id = p_team_id AND e.id = ms.event_id
                WHERE ms.team_id = p_team_id AND ms.memory_id = seen.id),
            true)
        ORDER BY seen.number DESC LIMIT p_limit) AS newest
    ORDER BY newest.number DESC LIMIT p_limit
$$;

-- A memory as these routes list it; with p_whole also what it says.
CREATE FUNCTION commonplace.worker_json(m commonplace.memories, p_whole boolean) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('number', m.number, 'id', m.id, 'kind', left(m.kind, 200), 'title', left(m.title, 1000), 'opening', left(m.content, 300),
    'sessionId', m.session_id, 'createdAtEpoch', commonplace.epoch_ms(m.created_at),
    'project', coalesce(m.metadata ->> 'project',
        (SELECT s.metadata ->> 'project' FROM commonplace.sessions s WHERE s.team_id = m.team_id AND s.id = m.session_id),
        (SELECT p.name FROM commonplace.projects p WHERE p.team_id = m.team_id AND p.id = m.project_id)))
    || CASE WHEN p_whole THEN jsonb_build_object('content', m.content, 'metadata', m.metadata) ELSE
        jsonb_build_object('metadata', jsonb_build_object(
            'files_read', coalesce(m.metadata -> 'files_read', m.metadata -> 'filesRead'),
            'files_modified', coalesce(m.metadata -> 'files_modified', m.metadata -> 'filesModified'))) END;

-- The memories of p_ids in that order, and the audit row of their reading. p_details says more of what was asked for.
-- OFFSET 0, here and below: each by its id, whatever the planner would rather read all of.
CREATE FUNCTION commonplace.worker_answer(p_team_id uuid, p_key_id uuid, p_project_id uuid, p_actor text, p_request_id text, p_mode text,
    p_ids uuid[], p_whole boolean, p_details jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, p_project_id, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
        jsonb_build_object('mode', p_mode, 'via', 'worker', 'resultCount', coalesce(cardinality(p_ids), 0),
            'observationIds', to_jsonb(coalesce(p_ids, '{}')), 'requestId', p_request_id) || jsonb_strip_nulls(p_details));
    RETURN (SELECT coalesce(jsonb_agg(commonplace.worker_json(m, p_whole) ORDER BY place), '[]')
        FROM unnest(p_ids) WITH ORDINALITY AS hit (id, place)
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = hit.id OFFSET 0) AS m);
END
$$;

-- What a session that begins should know: {"memories": the newest, "summary": the newest of kind summary|null}. Both are looked
-- for among the newest 200 under the names, or p_limit if that is more.
CREATE FUNCTION commonplace.context_inject_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_names text[], p_platform text, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[];
    summary_id uuid;
    answer jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    WITH newest AS MATERIALIZED (
        SELECT m.id, m.kind, m.number FROM commonplace.named_memories(p_team_id, p_key_project, p_actor, p_names, p_platform,
            greatest(200, p_limit)) AS named CROSS JOIN LATERAL (
                SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = named.memory_id OFFSET 0) AS m)
    SELECT (SELECT array_agg(id ORDER BY number DESC) FROM (
            SELECT id, number FROM newest WHERE kind <> 'summary' ORDER BY number DESC LIMIT p_limit) AS listed),
        (SELECT id FROM newest WHERE kind = 'summary' ORDER BY number DESC LIMIT 1)
    INTO ids, summary_id;
    answer := commonplace.worker_answer(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, 'context_inject',
        CASE WHEN summary_id IS NULL THEN ids ELSE summary_id || coalesce(ids, '{}') END, false,
        jsonb_build_object('projects', p_names, 'platformSource', p_platform, 'limit', p_limit));
    RETURN CASE WHEN summary_id IS NULL THEN jsonb_build_object('memories', answer, 'summary', NULL)
        ELSE jsonb_build_object('memories', answer - 0, 'summary', (SELECT commonplace.worker_json(m, true)
            FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.id = summary_id)) END;
END
$$;

-- The newest memories about a file. p_files: last parts of the paths; a stored path is the file when it is one of p_paths or
-- ends with one of p_endings. The audit row does not repeat the paths. The planner cannot know how many paths match, and would
-- read and sort all files of a common name: the settings keep it on the index, newest first, until there are enough.
CREATE FUNCTION commonplace.by_file_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_names text[], p_files text[], p_paths text[], p_endings text[], p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    ids uuid[];
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT array_agg(memory_id ORDER BY number DESC) INTO ids FROM (
        SELECT DISTINCT newest.memory_id, newest.number
        FROM commonplace.projects p CROSS JOIN unnest(p_files) AS file (name)
        CROSS JOIN LATERAL (
            SELECT f.memory_id, f.number FROM commonplace.memory_files f
                JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = f.memory_id
            WHERE f.team_id = p_team_id AND f.project_id = p.id AND f.name = file.name
                AND (f.path = ANY (p_paths) OR EXISTS (SELECT FROM unnest(p_endings) AS ending WHERE right(f.path, length(ending)) = ending))
                AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
                AND (p_names IS NULL OR p.name = ANY (p_names) OR EXISTS (SELECT FROM commonplace.memory_repositories r
                    WHERE r.team_id = p_team_id AND r.memory_id = f.memory_id AND r.repository = ANY (p_names)))
            -- A memory may name the file twice, by two of its paths.
            ORDER BY f.number DESC LIMIT 4 * p_limit) AS newest
        WHERE p.team_id = p_team_id AND (p_key_project IS NULL OR p.id = p_key_project)
        ORDER BY newest.number DESC LIMIT p_limit) AS listed;
    RETURN commonplace.worker_answer(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, 'by_file', ids, false,
        jsonb_build_object('projects', p_names, 'limit', p_limit));
END
$$;

-- What surrounds a memory in its project, oldest first, itself included; with p_name, what of it stands under that name.
-- p_anchor: its number or id, or NULL and p_query finds it. Returns {"anchor": its id, "memories"}, or NULL: no such memory.
CREATE FUNCTION commonplace.timeline_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_name text, p_anchor text, p_query text, p_platform text, p_before integer, p_after integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    anchor commonplace.memories;
    anchor_id uuid := commonplace.uuid_or_null(p_anchor);
    is_whole boolean;
    ids uuid[];
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_anchor IS NULL THEN
        SELECT hit.id INTO anchor_id FROM commonplace.worker_hits(p_team_id, p_key_project, p_actor,
            CASE WHEN p_name IS NOT NULL THEN ARRAY[p_name] END, p_query, p_platform) AS hit ORDER BY hit.place LIMIT 1;
    ELSIF anchor_id IS NULL AND pg_input_is_valid(p_anchor, 'integer') THEN
        SELECT id INTO anchor_id FROM commonplace.memories WHERE team_id = p_team_id AND number = p_anchor::integer;
    END IF;
    SELECT * INTO anchor FROM commonplace.memories WHERE team_id = p_team_id AND id = anchor_id
        AND (p_key_project IS NULL OR project_id = p_key_project) AND (visibility = 'team' OR owner_actor = p_actor);
    IF anchor.id IS NOT NULL THEN
        is_whole := p_name IS NULL
            OR EXISTS (SELECT FROM commonplace.projects WHERE team_id = p_team_id AND id = anchor.project_id AND name = p_name);
        SELECT array_agg(id ORDER BY number) INTO ids FROM (
            SELECT anchor.id, anchor.number
            UNION
            (SELECT m.id, m.number FROM commonplace.memories m
            WHERE is_whole AND m.team_id = p_team_id AND m.project_id = anchor.project_id AND m.number < anchor.number
                AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY m.number DESC LIMIT p_before)
            UNION
            (SELECT m.id, m.number FROM commonplace.memories m
            WHERE is_whole AND m.team_id = p_team_id AND m.project_id = anchor.project_id AND m.number > anchor.number
                AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY m.number LIMIT p_after)
            UNION
            (SELECT m.id, r.number FROM commonplace.memory_repositories r
                JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = r.memory_id
            WHERE NOT is_whole AND r.team_id = p_team_id AND r.project_id = anchor.project_id AND r.repository = p_name
                AND r.number < anchor.number AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY r.number DESC LIMIT p_before)
            UNION
            (SELECT m.id, r.number FROM commonplace.memory_repositories r
                JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = r.memory_id
            WHERE NOT is_whole AND r.team_id = p_team_id AND r.project_id = anchor.project_id AND r.repository = p_name
                AND r.number > anchor.number AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND m.superseded_by IS NULL
            ORDER BY r.number LIMIT p_after)) AS around;
    END IF;
    RETURN jsonb_build_object('memories', commonplace.worker_answer(p_team_id, p_key_id, coalesce(anchor.project_id, p_key_project),
            p_actor, p_request_id, 'timeline', ids, false,
            jsonb_build_object('anchor', anchor.id, 'project', p_name, 'query', p_query, 'platformSource', p_platform)),
        'anchor', anchor.id);
END
$$;

-- The memories that these numbers and ids name, as far as the caller sees them and one answer takes; superseded ones too, for they
-- were asked for.
CREATE FUNCTION commonplace.memory_batch_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_numbers integer[], p_ids text[], p_names text[], p_oldest_first boolean, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid[];
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT array_agg(id ORDER BY CASE WHEN p_oldest_first THEN number ELSE -number END) INTO found FROM (
        SELECT m.id, m.number FROM (
            SELECT commonplace.uuid_or_null(given) AS id FROM unnest(p_ids) AS given
            UNION SELECT id FROM commonplace.memories WHERE team_id = p_team_id AND number = ANY (p_numbers)) AS wanted
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = wanted.id OFFSET 0) AS m
        JOIN commonplace.projects p ON p.team_id = p_team_id AND p.id = m.project_id
        WHERE (p_key_project IS NULL OR m.project_id = p_key_project)
            AND (m.visibility = 'team' OR m.owner_actor = p_actor)
            AND (p_names IS NULL OR p.name = ANY (p_names) OR EXISTS (SELECT FROM commonplace.memory_repositories r
            WHERE r.team_id = p_team_id AND r.memory_id = m.id AND r.repository = ANY (p_names)))
        ORDER BY CASE WHEN p_oldest_first THEN m.number ELSE -m.number END LIMIT p_limit) AS listed;
    RETURN commonplace.worker_answer(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, 'batch',
        commonplace.answerable(p_team_id, found), true,
        jsonb_build_object('projects', p_names, 'limit', p_limit));
END
$$;

-- What answers p_query under the names, best first: 300 at most of each project, and of the 20 projects at most that wrote last.
-- Without a query the newest 1,000.
CREATE FUNCTION commonplace.worker_hits(p_team_id uuid, p_key_project uuid, p_actor text, p_names text[], p_query text, p_platform text)
RETURNS TABLE (id uuid, place bigint) LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_query IS NULL THEN
        RETURN QUERY SELECT named.memory_id, row_number() OVER (ORDER BY named.number DESC)
            FROM commonplace.named_memories(p_team_id, p_key_project, p_actor, p_names, p_platform, 1000) AS named;
        RETURN;
    END IF;
    RETURN QUERY SELECT hit.memory_id, row_number() OVER (ORDER BY hit.score DESC, hit.memory_id DESC)
        FROM (
            SELECT p.id, p.name FROM commonplace.projects p
            CROSS JOIN LATERAL (SELECT m.number FROM commonplace.memories m
                WHERE m.team_id = p_team_id AND m.project_id = p.id ORDER BY m.number DESC LIMIT 1) AS last
            WHERE p.team_id = p_team_id AND (p_key_project IS NULL OR p.id = p_key_project)
                AND (p_names IS NULL OR p.name = ANY (p_names) OR EXISTS (SELECT FROM commonplace.memory_repositories r
                    WHERE r.team_id = p_team_id AND r.project_id = p.id AND r.repository = ANY (p_names)))
            ORDER BY last.number DESC LIMIT 20) AS project
        CROSS JOIN LATERAL commonplace.ranked_memories(p_team_id, project.id, p_actor, p_query, 300, p_platform) AS hit
        WHERE (p_names IS NULL OR project.name = ANY (p_names) OR EXISTS (SELECT FROM commonplace.memory_repositories r
            WHERE r.team_id = p_team_id AND r.memory_id = hit.memory_id AND r.repository = ANY (p_names)));
END
$$;

-- A page of what answers p_query (NULL: the newest). p_kinds NULL: every kind; p_order: relevance, date_desc or date_asc.
-- Returns {"total": how many there are, "memories"}.
CREATE FUNCTION commonplace.worker_search_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_names text[], p_query text, p_platform text, p_kinds text[], p_no_kinds text[], p_from timestamptz, p_to timestamptz, p_order text,
    p_limit integer, p_offset integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[];
    total bigint;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    WITH hits AS MATERIALIZED (
        SELECT m.id, row_number() OVER (ORDER BY
            CASE p_order WHEN 'date_desc' THEN -m.number WHEN 'date_asc' THEN m.number ELSE hit.place END) AS place
        FROM commonplace.worker_hits(p_team_id, p_key_project, p_actor, p_names, p_query, p_platform) AS hit
            JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = hit.id
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

GRANT EXECUTE ON FUNCTION
    commonplace.named_memories(uuid, uuid, text, text[], text, integer),
    commonplace.worker_json(commonplace.memories, boolean),
    commonplace.worker_answer(uuid, uuid, uuid, text, text, text, uuid[], boolean, jsonb),
    commonplace.context_inject_v1(uuid, uuid, uuid, text, text, text[], text, integer),
    commonplace.by_file_v1(uuid, uuid, uuid, text, text, text[], text[], text[], text[], integer),
    commonplace.timeline_v1(uuid, uuid, uuid, text, text, text, text, text, text, integer, integer),
    commonplace.memory_batch_v1(uuid, uuid, uuid, text, text, integer[], text[], text[], boolean, integer),
    commonplace.worker_hits(uuid, uuid, text, text[], text, text),
    commonplace.worker_search_v1(uuid, uuid, uuid, text, text, text[], text, text, text[], text[], timestamptz, timestamptz, text,
        integer, integer)
TO commonplace_runtime;
