-- The hot paths, measured (benchmarks/http.py) and made cheaper: what a batch asks for, it asks for all events at once.

-- As in 0006, but a job is looked for by its event, for which alone there is an index: of those that begin with team and project
-- the planner takes any, until the table is analysed, and would read the project's whole queue for each event.
CREATE OR REPLACE FUNCTION commonplace.queue_event(p_event commonplace.events, p_job_id uuid, p_key_id uuid, p_request_id text, p_mode text,
    p_window_seconds integer, p_is_awaited boolean, p_counted text) RETURNS commonplace.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs;
    group_key text := commonplace.session_key(p_event.id, p_event.session_id, p_event.content_session_id,
        p_event.platform_source, p_event.actor);
    mode text := CASE WHEN group_key LIKE 'e:%' THEN 'per-event' ELSE p_mode END;
BEGIN
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_event.team_id AND event_id = p_event.id
        AND source_type = 'agent_event' AND job_type = 'observation_generate_for_event';
    IF FOUND THEN
        IF p_is_awaited AND NOT job.awaited AND job.status IN ('queued', 'processing') THEN
            UPDATE commonplace.jobs SET awaited = true WHERE team_id = p_event.team_id AND id = job.id RETURNING * INTO job;
        END IF;
        RETURN job;
    END IF;
    IF group_key IS DISTINCT FROM p_counted THEN
        PERFORM commonplace.add_waiting(p_event.team_id, p_event.project_id, group_key, p_event.session_id, mode, p_window_seconds, 1);
    END IF;
    INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, session_id, event_id, source_type, source_id, job_type,
        run_after, key_id, actor, request_id, awaited, event_bytes)
    VALUES (p_job_id, p_event.team_id, p_event.project_id, group_key, p_event.session_id, p_event.id, 'agent_event', p_event.id,
        'observation_generate_for_event', now() + commonplace.policy_silence(mode, p_window_seconds), p_key_id, p_event.actor,
        p_request_id, p_is_awaited, octet_length(p_event.payload::text))
    RETURNING * INTO job;
    RETURN job;
END
$$;

-- Store events of which no two are the same, with their jobs. p_projects, p_sessions and p_keys (of groups, for events that are
-- new) stand in the order of p_events, whose fields are those of ingest_v1 (0006).
-- p_counted: groups (project, then key) that the caller holds locked, and tells itself of their new jobs; others are told here.
-- Returns [{"event", "job"|null}] in the order given, and for each job that is new its group (project, then key).
CREATE FUNCTION commonplace.store_events(p_team_id uuid, p_key_id uuid, p_actor text, p_request_id text, p_generate boolean,
    p_awaited boolean, p_mode text, p_window_seconds integer, p_events jsonb, p_projects uuid[], p_sessions uuid[], p_keys text[],
    p_counted text[], OUT answers jsonb, OUT added text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored record;
    known jsonb := '{}';
    made record;
    late record;
BEGIN
    WITH given AS MATERIALIZED (
        SELECT * FROM ROWS FROM (
            jsonb_to_recordset(p_events) AS (id uuid, "jobId" uuid, "contentSessionId" text, "platformSource" text,
                "sourceAdapter" text, "sourceEventId" text, "eventType" text, payload jsonb, metadata jsonb, "occurredAt" bigint,
                digest text, "privateParts" integer, "redactedSecrets" integer),
            unnest(p_projects), unnest(p_sessions), unnest(p_keys)) WITH ORDINALITY
            AS g (id, job_id, content_session_id, platform_source, source_adapter, source_event_id, event_type, payload, metadata,
                occurred_ms, digest, private_parts, redacted_secrets, project_id, session_id, session_key, place)
    ), inserted AS (
        INSERT INTO commonplace.events AS e (id, team_id, project_id, session_id, content_session_id, source_adapter,
            source_event_id, idempotency_key, event_type, platform_source, actor, key_id, payload, metadata,
            private_parts, redacted_secrets, occurred_at)
        SELECT id, p_team_id, project_id, session_id, content_session_id, source_adapter, source_event_id,
            project_id || ':' || digest, event_type, platform_source, p_actor, p_key_id, payload, metadata,
            private_parts, redacted_secrets, to_timestamp(occurred_ms / 1000.0)
        FROM given
        -- One order of locks for everybody, so that batches over the same events cannot deadlock: a session's group
        -- comes before its events, which keep their order; events without a session stand in the order of their keys.
        ORDER BY project_id, session_id, platform_source, content_session_id,
            CASE WHEN session_id IS NULL AND content_session_id IS NULL THEN digest END, place
        ON CONFLICT (team_id, idempotency_key) DO UPDATE SET metadata = e.metadata || excluded.metadata,
            platform_source = coalesce(e.platform_source, excluded.platform_source)
        RETURNING e.id, e.idempotency_key, e.session_id, e.content_session_id, e.platform_source,
            CASE WHEN p_generate THEN octet_length(e.payload::text) END AS bytes, commonplace.event_json(e) AS shown
    ), placed AS (
        SELECT g.place, i.id, i.id = g.id AS is_new, g.job_id, g.project_id, i.session_id, i.bytes, i.shown,
            CASE WHEN i.id = g.id THEN g.session_key
                ELSE commonplace.session_key(i.id, i.session_id, i.content_session_id, i.platform_source, p_actor) END AS session_key
        FROM given g JOIN inserted i ON i.idempotency_key = g.project_id || ':' || g.digest ORDER BY g.place
    )
    SELECT array_agg(id) AS ids, array_agg(is_new) AS are_new, array_agg(job_id) AS job_ids, array_agg(project_id) AS projects,
        array_agg(session_id) AS sessions, array_agg(bytes) AS bytes, array_agg(session_key) AS keys, array_agg(shown) AS shown
    INTO stored FROM placed;
    IF NOT p_generate THEN
        SELECT jsonb_agg(jsonb_build_object('event', event, 'job', NULL) ORDER BY place) INTO answers
        FROM unnest(stored.shown) WITH ORDINALITY AS s (event, place);
        RETURN;
    END IF;
    IF false = ANY (stored.are_new) THEN
        WITH asked AS (
            UPDATE commonplace.jobs j SET awaited = true
            FROM unnest(stored.ids, stored.are_new, stored.projects) AS s (id, is_new, project_id)
            WHERE p_awaited AND NOT s.is_new AND j.team_id = p_team_id AND j.event_id = s.id
                AND j.source_type = 'agent_event' AND j.job_type = 'observation_generate_for_event'
                AND NOT j.awaited AND j.status IN ('queued', 'processing'))
        SELECT coalesce(jsonb_object_agg(s.id, commonplace.job_json(j)), '{}') INTO known
        FROM unnest(stored.ids, stored.are_new, stored.projects) AS s (id, is_new, project_id)
        JOIN commonplace.jobs j ON j.team_id = p_team_id AND j.event_id = s.id AND j.source_type = 'agent_event'
            AND j.job_type = 'observation_generate_for_event'
        WHERE NOT s.is_new;
    END IF;
    FOR late IN
        SELECT s.project_id, s.key, s.session_id, count(*)::integer AS jobs
        FROM unnest(stored.ids, stored.projects, stored.keys, stored.sessions) AS s (id, project_id, key, session_id)
        WHERE NOT known ? s.id::text AND NOT s.project_id || s.key = ANY (p_counted)
        GROUP BY s.project_id, s.key, s.session_id ORDER BY s.project_id, s.session_id, s.key
    LOOP
        PERFORM commonplace.add_waiting(p_team_id, late.project_id, late.key, late.session_id,
            CASE WHEN late.key LIKE 'e:%' THEN 'per-event' ELSE p_mode END, p_window_seconds, late.jobs);
    END LOOP;
    WITH wanted AS (
        SELECT s.* FROM unnest(stored.ids, stored.job_ids, stored.projects, stored.sessions, stored.keys, stored.bytes)
            WITH ORDINALITY AS s (id, job_id, project_id, session_id, key, bytes, place)
        WHERE NOT known ? s.id::text ORDER BY place
    ), queued AS (
        INSERT INTO commonplace.jobs AS j (id, team_id, project_id, session_key, session_id, event_id, source_type, source_id,
            job_type, run_after, key_id, actor, request_id, awaited, event_bytes)
        SELECT job_id, p_team_id, project_id, key, session_id, id, 'agent_event', id, 'observation_generate_for_event',
            now() + commonplace.policy_silence(CASE WHEN key LIKE 'e:%' THEN 'per-event' ELSE p_mode END, p_window_seconds),
            p_key_id, p_actor, p_request_id, p_awaited, bytes
        FROM wanted ORDER BY place
        RETURNING j.event_id, j.project_id || j.session_key AS group_key, commonplace.job_json(j) AS shown
    )
    SELECT coalesce(jsonb_object_agg(event_id, shown), '{}') AS jobs, array_agg(group_key) AS keys INTO made FROM queued;
    added := made.keys;
    SELECT jsonb_agg(jsonb_build_object('event', event, 'job', coalesce(made.jobs -> id::text, known -> id::text)) ORDER BY place)
    INTO answers FROM unnest(stored.shown, stored.ids) WITH ORDINALITY AS s (event, id, place);
END
$$;

-- Store a batch of events with their jobs, group marks and audit row: all of them or none. What ingest_v1 does for one
-- event; it says what this is given and gives.
CREATE FUNCTION commonplace.ingest_batch_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_generate boolean, p_events jsonb, p_awaited boolean)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    policy record;
    item record;
    held record;
    named text;
    before text[];
    place_of text[];
    meant uuid;
    linked uuid;
    group_key text;
    projects uuid[] := '{}';
    sessions uuid[] := '{}';
    keys text[] := '{}';
    digests text[] := '{}';
    counted text[] := '{}';
    added text[] := '{}';
    stored record;
    answers jsonb := '[]';
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT generation_mode AS mode, generation_window_seconds AS window_seconds INTO policy FROM commonplace.teams WHERE id = p_team_id;
    -- Neighbours in a batch are of one session as a rule: what was found for the one is good for the next.
    FOR item IN
        SELECT given ->> 'project' AS project, given ->> 'digest' AS digest, given ->> 'id' AS id, given, place,
            ARRAY[given ->> 'serverSessionId', given ->> 'contentSessionId', given ->> 'platformGiven', given ->> 'platformSource']
                AS whereabouts
        FROM jsonb_array_elements(p_events) WITH ORDINALITY AS listed (given, place)
    LOOP
        IF meant IS NULL OR item.project IS DISTINCT FROM named THEN
            named := item.project;
            before := NULL;
            meant := commonplace.resolve_project(p_team_id, p_key_project, named, item.place - 1);
            IF meant IS NULL THEN
                RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
            END IF;
        END IF;
        place_of := item.whereabouts;
        IF before IS NULL OR place_of <> before OR (place_of[1] IS NULL AND place_of[2] IS NULL) THEN
            before := place_of;
            linked := NULL;
            IF place_of[1] IS NOT NULL OR place_of[2] IS NOT NULL THEN
                linked := commonplace.link_session(p_team_id, meant, item.given);
            END IF;
            IF p_generate THEN
                group_key := commonplace.session_key(item.id::uuid, linked, place_of[2], place_of[4], p_actor);
            END IF;
        END IF;
        projects[item.place] := meant;
        sessions[item.place] := linked;
        keys[item.place] := group_key;
        digests[item.place] := meant || item.digest;
    END LOOP;

    IF p_generate THEN
        FOR held IN
            SELECT DISTINCT g.project_id, g.session_id, g.key
            FROM unnest(projects, sessions, keys) AS g (project_id, session_id, key) WHERE g.key NOT LIKE 'e:%'
            ORDER BY g.project_id, g.session_id, g.key
        LOOP
            PERFORM commonplace.add_waiting(p_team_id, held.project_id, held.key, held.session_id, policy.mode, policy.window_seconds, 0);
            counted := counted || (held.project_id || held.key);
        END LOOP;
    END IF;

    IF (SELECT count(DISTINCT digest) FROM unnest(digests) AS digest) = cardinality(digests) THEN
        SELECT * INTO stored FROM commonplace.store_events(p_team_id, p_key_id, p_actor, p_request_id, p_generate, p_awaited,
            policy.mode, policy.window_seconds, p_events, projects, sessions, keys, counted);
        answers := stored.answers;
        added := stored.added;
    ELSE
        -- The same event twice in one batch: the second merges into the first, so one comes after the other.
        FOR item IN SELECT given, place FROM jsonb_array_elements(p_events) WITH ORDINALITY AS listed (given, place) LOOP
            SELECT * INTO stored FROM commonplace.store_events(p_team_id, p_key_id, p_actor, p_request_id, p_generate, p_awaited,
                policy.mode, policy.window_seconds, jsonb_build_array(item.given), projects[item.place:item.place],
                sessions[item.place:item.place], keys[item.place:item.place], counted);
            answers := answers || stored.answers;
            added := added || stored.added;
        END LOOP;
    END IF;

    IF cardinality(counted) > 0 THEN
        FOR held IN
            SELECT g.project_id, g.session_id, g.key, (SELECT count(*)::integer FROM unnest(added) AS a (place) WHERE a.place = g.project_id || g.key) AS jobs
            FROM (SELECT DISTINCT project_id, session_id, key FROM unnest(projects, sessions, keys) AS g (project_id, session_id, key)) AS g
            WHERE g.project_id || g.key = ANY (counted) ORDER BY g.project_id, g.session_id, g.key
        LOOP
            IF held.jobs > 0 THEN
                PERFORM commonplace.add_waiting(p_team_id, held.project_id, held.key, held.session_id, policy.mode,
                    policy.window_seconds, held.jobs);
            END IF;
        END LOOP;
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, p_key_project, p_key_id, p_actor, p_request_id, 'event.batch_received', 'agent_event',
        jsonb_build_object('requestId', p_request_id, 'eventCount', jsonb_array_length(answers), 'generationJobIds',
            CASE WHEN p_generate THEN jsonb_path_query_array(answers, '$[*].job.id') ELSE '[]' END));
    RETURN answers;
END
$$;

-- The ranking of 0003. How many memories there are, and how rare each word is, is counted once for a search, and a successor is read
-- by its id (OFFSET 0): in the plan of a table that was never analysed, or of a team much larger than others, the project was read
-- through for each match.
CREATE OR REPLACE FUNCTION commonplace.ranked_memories(p_team_id uuid, p_project_id uuid, p_actor text, p_query text, p_limit integer,
    p_platform text)
RETURNS TABLE (memory_id uuid, score double precision) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE words AS MATERIALIZED (
        SELECT place, ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery AS word
        FROM unnest(tsvector_to_array(to_tsvector('pg_catalog.english',
            left(p_query, 4000) || ' ' || commonplace.split_identifiers(left(p_query, 4000))))) WITH ORDINALITY AS w (word, place)
        LIMIT 64
    ), matches AS MATERIALIZED (
        SELECT m.id, m.superseded_by, m.created_at, w.place, ts_rank('{0.1, 0.2, 0.4, 1.0}', m.lexemes, w.word) AS weight
        FROM commonplace.memories m JOIN words w ON m.lexemes @@ w.word
        WHERE m.team_id = p_team_id AND m.project_id = p_project_id AND (m.visibility = 'team' OR m.owner_actor = p_actor)
            AND (p_platform IS NULL OR commonplace.is_from_platform(p_team_id, m.id, m.session_id, p_platform))
    ), size AS MATERIALIZED (
        SELECT count(*) AS memories FROM commonplace.memories WHERE team_id = p_team_id AND project_id = p_project_id
    ), rarity AS MATERIALIZED (
        SELECT place, ln(1 + (memories - count(*) + 0.5) / (count(*) + 0.5)) AS worth
        FROM matches CROSS JOIN size GROUP BY place, memories
    ), found AS (
        SELECT m.id, m.superseded_by,
            sum(m.weight * r.worth) * (1 + 0.05 * exp(-extract(epoch FROM now() - m.created_at) / 2592000)) AS score
        FROM matches m JOIN rarity r USING (place) GROUP BY m.id, m.superseded_by, m.created_at
    ), chain AS (
        SELECT f.id, f.superseded_by, f.score, 0 AS depth FROM found f
        UNION ALL
        SELECT m.id, m.superseded_by, c.score, c.depth + 1
        FROM chain c
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = c.superseded_by OFFSET 0) AS m
        WHERE c.depth < 20 AND c.superseded_by IS NOT NULL
            AND m.project_id = p_project_id AND (m.visibility = 'team' OR m.owner_actor = p_actor)
    )
    SELECT id, max(score)::double precision FROM chain WHERE superseded_by IS NULL
    GROUP BY id ORDER BY 2 DESC, id DESC LIMIT p_limit;
$$;

-- Recall, as 0003 says: what it shows of the memories found is gathered by one statement, each by its id (OFFSET 0), whatever the
-- planner would rather read all of. An answer ends at 8 MB, and has always the best: whoever answers holds all of it.
CREATE OR REPLACE FUNCTION commonplace.recall_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_mode text, p_project text, p_query text, p_limit integer, p_platform text, p_via text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
    ids uuid[];
    scores double precision[];
    answer jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    IF p_query IS NOT NULL THEN
        SELECT array_agg(r.memory_id), array_agg(r.score) INTO ids, scores
        FROM commonplace.ranked_memories(p_team_id, meant, p_actor, p_query, p_limit, p_platform) r;
    ELSE
        ids := ARRAY(
            SELECT m.id FROM commonplace.memories m
            WHERE m.team_id = p_team_id AND m.project_id = meant AND (m.visibility = 'team' OR m.owner_actor = p_actor)
                AND m.superseded_by IS NULL
                AND (p_platform IS NULL OR commonplace.is_from_platform(p_team_id, m.id, m.session_id, p_platform))
            ORDER BY m.number DESC LIMIT p_limit);
    END IF;
    SELECT jsonb_agg(jsonb_build_object('id', m.id, 'projectId', m.project_id, 'teamId', m.team_id, 'serverSessionId', m.session_id,
            'kind', m.kind, 'title', m.title, 'content', m.content, 'metadata', m.metadata,
            'createdAtEpoch', floor(extract(epoch FROM m.created_at) * 1000)::bigint,
            'updatedAtEpoch', floor(extract(epoch FROM m.updated_at) * 1000)::bigint,
            'sources', coalesce(source.list, '[]'), 'score', round(scores[place]::numeric, 6)) ORDER BY place),
        array_agg(m.id ORDER BY place)
    INTO answer, ids
    FROM (
        SELECT m.*, place, sum(octet_length(m.content) + 4 * pg_column_size(m.metadata)) OVER (ORDER BY place) AS bytes
        FROM unnest(ids) WITH ORDINALITY AS hit (id, place)
        CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = hit.id OFFSET 0) AS m) AS m
    LEFT JOIN (
        SELECT s.memory_id, jsonb_agg(jsonb_build_object('sourceType', s.source_type, 'sourceId', s.source_id)
            ORDER BY s.created_at, s.source_id) AS list
        FROM commonplace.memory_sources s WHERE s.team_id = p_team_id AND s.memory_id = ANY (ids) GROUP BY s.memory_id
    ) AS source ON source.memory_id = m.id
    WHERE place = 1 OR bytes <= 8000000;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
        jsonb_build_object('mode', p_mode, 'limit', p_limit, 'resultCount', coalesce(cardinality(ids), 0),
            'observationIds', to_jsonb(coalesce(ids, '{}')), 'requestId', p_request_id)
        || jsonb_strip_nulls(jsonb_build_object('query', p_query, 'platformSource', p_platform, 'via', p_via)));
    RETURN coalesce(answer, '[]');
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.ingest_batch_v1(uuid, uuid, uuid, text, text, boolean, jsonb, boolean),
    commonplace.store_events(uuid, uuid, text, text, boolean, boolean, text, integer, jsonb, uuid[], uuid[], text[], text[])
TO commonplace_runtime;
