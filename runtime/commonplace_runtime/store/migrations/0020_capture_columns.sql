-- Capture by columns: what an event says comes as values and not inside JSON, and only what the caller does not know goes back.
-- ingest_v1 and ingest_batch_v1 stay for the version before.

-- Store one event with its job, group mark and audit row. As ingest_v1 (0006) for one event, whose fields are the arguments.
-- shown: the event as it is stored, where the same came before and was merged; NULL for one that is new, whose sender knows the rest.
CREATE FUNCTION commonplace.ingest_v2(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_generate boolean, p_awaited boolean, p_id uuid, p_job_id uuid, p_project text, p_server_session text, p_content_session text,
    p_platform_given boolean, p_platform text, p_source_adapter text, p_source_event_id text, p_event_type text, p_payload jsonb,
    p_metadata jsonb, p_occurred_ms bigint, p_digest text, p_private_parts integer, p_redacted_secrets integer,
    OUT project_id text, OUT session_id text, OUT received_ms bigint, OUT created_ms bigint, OUT shown jsonb, OUT job jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    team text := set_config('app.team_id', p_team_id::text, true);
    meant uuid := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    linked uuid;
    policy record;
    event commonplace.events;
    queued commonplace.jobs;
BEGIN
    IF meant IS NULL THEN
        RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
    END IF;
    IF p_server_session IS NOT NULL OR p_content_session IS NOT NULL THEN
        linked := commonplace.link_session(p_team_id, meant, jsonb_build_object('serverSessionId', p_server_session,
            'contentSessionId', p_content_session, 'platformGiven', p_platform_given, 'platformSource', p_platform));
    END IF;
    IF p_generate THEN
        SELECT generation_mode AS mode, generation_window_seconds AS window_seconds INTO policy
            FROM commonplace.teams WHERE id = p_team_id;
    END IF;
    INSERT INTO commonplace.events AS e (id, team_id, project_id, session_id, content_session_id, source_adapter,
        source_event_id, idempotency_key, event_type, platform_source, actor, key_id, payload, metadata,
        private_parts, redacted_secrets, occurred_at)
    VALUES (p_id, p_team_id, meant, linked, p_content_session, p_source_adapter, p_source_event_id, meant || ':' || p_digest,
        p_event_type, p_platform, p_actor, p_key_id, p_payload, p_metadata, p_private_parts, p_redacted_secrets,
        to_timestamp(p_occurred_ms / 1000) + p_occurred_ms % 1000 * interval '1 millisecond')
    ON CONFLICT (team_id, idempotency_key) DO UPDATE SET metadata = e.metadata || excluded.metadata,
        platform_source = coalesce(e.platform_source, excluded.platform_source)
    RETURNING * INTO event;
    IF p_generate THEN
        queued := commonplace.queue_event(event, p_job_id, p_key_id, p_request_id, policy.mode, policy.window_seconds, p_awaited, NULL);
        job := commonplace.job_json(queued);
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'event.received', 'agent_event', event.id::text,
        jsonb_build_object('requestId', p_request_id, 'sourceAdapter', event.source_adapter, 'sourceEventId', event.source_event_id,
            'eventType', event.event_type, 'serverSessionId', event.session_id, 'generationJobId', queued.id));
    project_id := meant;
    session_id := event.session_id;
    received_ms := commonplace.epoch_ms(event.received_at);
    created_ms := commonplace.epoch_ms(event.created_at);
    IF event.id <> p_id THEN
        shown := commonplace.event_json(event);
    END IF;
END
$$;

-- store_events (0015) by columns. p_place: for each event which of p_projects, p_sessions and p_keys is its own; a key of NULL is an
-- event's without a session. p_counted: groups (project, then key) that the caller holds locked, and tells itself of their new jobs.
-- The answers stand in the order of the events: shown is NULL for one that is new. added: of each job that is new its group.
CREATE FUNCTION commonplace.store_columns(p_team_id uuid, p_key_id uuid, p_actor text, p_request_id text, p_generate boolean,
    p_awaited boolean, p_mode text, p_window_seconds integer, p_projects uuid[], p_sessions uuid[], p_keys text[], p_contents text[],
    p_platforms text[], p_counted text[], p_place integer[], p_ids uuid[], p_job_ids uuid[], p_adapters text[], p_source_ids text[],
    p_types text[], p_payloads text[], p_metadata text[], p_occurred_ms bigint[], p_digests text[], p_private_parts integer[],
    p_redacted_secrets integer[],
    OUT projects uuid[], OUT sessions uuid[], OUT received bigint[], OUT created bigint[], OUT shown jsonb[], OUT jobs jsonb[],
    OUT added text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored record;
    known jsonb := '{}';
    made record;
    late record;
BEGIN
    WITH given AS MATERIALIZED (
        SELECT g.id, g.job_id, g.adapter, g.source_id, g.type, g.payload::jsonb AS payload, g.metadata::jsonb AS metadata, g.occurred_ms,
            p_projects[g.spot] || ':' || g.digest AS digest, g.private_parts, g.redacted_secrets, g.place, p_projects[g.spot] AS project_id,
            p_sessions[g.spot] AS session_id, p_keys[g.spot] AS session_key, p_contents[g.spot] AS content_session_id,
            p_platforms[g.spot] AS platform_source
        FROM ROWS FROM (unnest(p_place), unnest(p_ids), unnest(p_job_ids), unnest(p_adapters), unnest(p_source_ids), unnest(p_types),
            unnest(p_payloads), unnest(p_metadata), unnest(p_occurred_ms), unnest(p_digests), unnest(p_private_parts),
            unnest(p_redacted_secrets)) WITH ORDINALITY
            AS g (spot, id, job_id, adapter, source_id, type, payload, metadata, occurred_ms, digest, private_parts, redacted_secrets, place)
    ), inserted AS (
        INSERT INTO commonplace.events AS e (id, team_id, project_id, session_id, content_session_id, source_adapter,
            source_event_id, idempotency_key, event_type, platform_source, actor, key_id, payload, metadata,
            private_parts, redacted_secrets, occurred_at)
        SELECT id, p_team_id, project_id, session_id, content_session_id, adapter, source_id, digest, type, platform_source,
            p_actor, p_key_id, payload, metadata, private_parts, redacted_secrets,
            to_timestamp(occurred_ms / 1000) + occurred_ms % 1000 * interval '1 millisecond'
        FROM given
        -- One order of locks for everybody, so that batches over the same events cannot deadlock: a session's group
        -- comes before its events, which keep their order; events without a session stand in the order of their keys.
        ORDER BY project_id, session_id, platform_source, content_session_id,
            CASE WHEN session_id IS NULL AND content_session_id IS NULL THEN digest END, place
        ON CONFLICT (team_id, idempotency_key) DO UPDATE SET metadata = e.metadata || excluded.metadata,
            platform_source = coalesce(e.platform_source, excluded.platform_source)
        RETURNING e.id, e.idempotency_key, e.session_id, e.content_session_id, e.platform_source, e.received_at, e.created_at,
            CASE WHEN p_generate THEN octet_length(e.payload::text) END AS bytes,
            CASE WHEN e.id <> ALL (p_ids) THEN commonplace.event_json(e) END AS shown
    ), placed AS (
        SELECT g.place, i.id, i.id = g.id AS is_new, g.job_id, g.project_id, i.session_id, i.bytes, i.shown,
            commonplace.epoch_ms(i.received_at) AS received, commonplace.epoch_ms(i.created_at) AS created,
            CASE WHEN i.id = g.id THEN coalesce(g.session_key, 'e:' || i.id)
                ELSE commonplace.session_key(i.id, i.session_id, i.content_session_id, i.platform_source, p_actor) END AS session_key
        FROM given g JOIN inserted i ON i.idempotency_key = g.digest ORDER BY g.place
    )
    SELECT array_agg(id) AS ids, array_agg(is_new) AS are_new, array_agg(job_id) AS job_ids, array_agg(project_id) AS projects,
        array_agg(session_id) AS sessions, array_agg(bytes) AS bytes, array_agg(session_key) AS keys, array_agg(placed.shown) AS shown,
        array_agg(placed.received) AS received, array_agg(placed.created) AS created
    INTO stored FROM placed;
    projects := stored.projects;
    sessions := stored.sessions;
    received := stored.received;
    created := stored.created;
    shown := stored.shown;
    jobs := '{}';
    added := '{}';
    IF NOT p_generate THEN
        RETURN;
    END IF;
    IF false = ANY (stored.are_new) THEN
        WITH asked AS (
            UPDATE commonplace.jobs j SET awaited = true
            FROM unnest(stored.ids, stored.are_new) AS s (id, is_new)
            WHERE p_awaited AND NOT s.is_new AND j.team_id = p_team_id AND j.event_id = s.id
                AND j.source_type = 'agent_event' AND j.job_type = 'observation_generate_for_event'
                AND NOT j.awaited AND j.status IN ('queued', 'processing'))
        SELECT coalesce(jsonb_object_agg(s.id, s.shown), '{}') INTO known FROM (
            SELECT s.id, j.shown FROM unnest(stored.ids, stored.are_new) AS s (id, is_new)
            -- OFFSET 0: job by job, whatever the planner knew of an empty table.
            CROSS JOIN LATERAL (SELECT commonplace.job_json(q) AS shown FROM commonplace.jobs q
                WHERE q.team_id = p_team_id AND q.event_id = s.id AND q.source_type = 'agent_event'
                    AND q.job_type = 'observation_generate_for_event' OFFSET 0) AS j
            WHERE NOT s.is_new) AS s;
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
    SELECT coalesce(jsonb_object_agg(event_id, queued.shown), '{}') AS jobs, coalesce(array_agg(group_key), '{}') AS keys
    INTO made FROM queued;
    added := made.keys;
    jobs := ARRAY(SELECT coalesce(made.jobs -> id::text, known -> id::text)
        FROM unnest(stored.ids) WITH ORDINALITY AS s (id, place) ORDER BY place);
END
$$;

-- Store a batch of events with their jobs, group marks and audit row: all of them or none.
-- p_spots: where events belong, each once, in the order of its first event: [{"project"|null, "serverSessionId"|null,
-- "contentSessionId"|null, "platformGiven", "platformSource"|null, "first": that event's position, from 0}]. p_place: which of them
-- (from 1) an event has; the columns after it are the fields of ingest_v2, payload and metadata as JSON.
-- A row for each event in the order given, as ingest_v2 answers for one.
CREATE FUNCTION commonplace.ingest_batch_v2(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_generate boolean, p_awaited boolean, p_spots jsonb, p_place integer[], p_ids uuid[], p_job_ids uuid[], p_adapters text[],
    p_source_ids text[], p_types text[], p_payloads text[], p_metadata text[], p_occurred_ms bigint[], p_digests text[],
    p_private_parts integer[], p_redacted_secrets integer[])
RETURNS TABLE (project_id text, session_id text, received_ms bigint, created_ms bigint, shown jsonb, job jsonb)
LANGUAGE plpgsql ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    team text := set_config('app.team_id', p_team_id::text, true);
    policy record;
    spot record;
    held record;
    meant uuid;
    linked uuid;
    projects uuid[] := '{}';
    sessions uuid[] := '{}';
    keys text[] := '{}';
    contents text[] := '{}';
    platforms text[] := '{}';
    counted text[] := '{}';
    stored record;
    one record;
BEGIN
    SELECT generation_mode AS mode, generation_window_seconds AS window_seconds INTO policy FROM commonplace.teams WHERE id = p_team_id;
    FOR spot IN
        SELECT s.*, o.place, o.given FROM jsonb_array_elements(p_spots) WITH ORDINALITY AS o (given, place)
        CROSS JOIN LATERAL (SELECT o.given ->> 'project' AS project, o.given ->> 'serverSessionId' AS server_session,
            o.given ->> 'contentSessionId' AS content_session, o.given ->> 'platformSource' AS platform,
            (o.given ->> 'first')::bigint AS first) AS s
    LOOP
        meant := commonplace.resolve_project(p_team_id, p_key_project, spot.project, spot.first);
        IF meant IS NULL THEN
            RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
        END IF;
        linked := CASE WHEN spot.server_session IS NOT NULL OR spot.content_session IS NOT NULL
            THEN commonplace.link_session(p_team_id, meant, spot.given) END;
        projects[spot.place] := meant;
        sessions[spot.place] := linked;
        contents[spot.place] := spot.content_session;
        platforms[spot.place] := spot.platform;
        keys[spot.place] := CASE WHEN linked IS NOT NULL OR spot.content_session IS NOT NULL
            THEN commonplace.session_key(NULL, linked, spot.content_session, spot.platform, p_actor) END;
    END LOOP;

    IF p_generate THEN
        FOR held IN
            SELECT DISTINCT g.project_id, g.session_id, g.key FROM unnest(projects, sessions, keys) AS g (project_id, session_id, key)
            WHERE g.key IS NOT NULL ORDER BY g.project_id, g.session_id, g.key
        LOOP
            PERFORM commonplace.add_waiting(p_team_id, held.project_id, held.key, held.session_id, policy.mode, policy.window_seconds, 0);
            counted := counted || (held.project_id || held.key);
        END LOOP;
    END IF;

    IF (SELECT count(DISTINCT digest) FROM unnest(p_digests) AS digest) = cardinality(p_digests) THEN
        SELECT * INTO stored FROM commonplace.store_columns(p_team_id, p_key_id, p_actor, p_request_id, p_generate, p_awaited,
            policy.mode, policy.window_seconds, projects, sessions, keys, contents, platforms, counted, p_place, p_ids, p_job_ids,
            p_adapters, p_source_ids, p_types, p_payloads, p_metadata, p_occurred_ms, p_digests, p_private_parts, p_redacted_secrets);
    ELSE
        -- The same event twice in one batch: the second merges into the first, so one comes after the other.
        FOR n IN 1..cardinality(p_ids) LOOP
            SELECT * INTO one FROM commonplace.store_columns(p_team_id, p_key_id, p_actor, p_request_id, p_generate, p_awaited,
                policy.mode, policy.window_seconds, projects, sessions, keys, contents, platforms, counted, p_place[n:n], p_ids[n:n],
                p_job_ids[n:n], p_adapters[n:n], p_source_ids[n:n], p_types[n:n], p_payloads[n:n], p_metadata[n:n],
                p_occurred_ms[n:n], p_digests[n:n], p_private_parts[n:n], p_redacted_secrets[n:n]);
            IF n = 1 THEN
                stored := one;
            ELSE
                SELECT stored.projects || one.projects AS projects, stored.sessions || one.sessions AS sessions,
                    stored.received || one.received AS received, stored.created || one.created AS created,
                    stored.shown || one.shown AS shown, stored.jobs || one.jobs AS jobs, stored.added || one.added AS added
                INTO stored;
            END IF;
        END LOOP;
    END IF;

    FOR held IN
        SELECT g.project_id, g.session_id, g.key,
            (SELECT count(*)::integer FROM unnest(stored.added) AS a (place) WHERE a.place = g.project_id || g.key) AS jobs
        FROM (SELECT DISTINCT s.project_id, s.session_id, s.key
            FROM unnest(projects, sessions, keys) AS s (project_id, session_id, key)) AS g
        WHERE cardinality(counted) > 0 AND g.project_id || g.key = ANY (counted) ORDER BY g.project_id, g.session_id, g.key
    LOOP
        IF held.jobs > 0 THEN
            PERFORM commonplace.add_waiting(p_team_id, held.project_id, held.key, held.session_id, policy.mode,
                policy.window_seconds, held.jobs);
        END IF;
    END LOOP;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, p_key_project, p_key_id, p_actor, p_request_id, 'event.batch_received', 'agent_event',
        jsonb_build_object('requestId', p_request_id, 'eventCount', cardinality(p_ids), 'generationJobIds',
            (SELECT coalesce(jsonb_agg(queued -> 'id' ORDER BY place), '[]')
                FROM unnest(stored.jobs) WITH ORDINALITY AS j (queued, place))));
    RETURN QUERY SELECT a.project::text, a.session::text, a.received, a.created, a.shown, a.queued
        FROM ROWS FROM (unnest(stored.projects), unnest(stored.sessions), unnest(stored.received), unnest(stored.created),
            unnest(stored.shown), unnest(stored.jobs)) WITH ORDINALITY AS a (project, session, received, created, shown, queued, place)
        ORDER BY a.place;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.ingest_v2(uuid, uuid, uuid, text, text, boolean, boolean, uuid, uuid, text, text, text, boolean, text, text, text, text,
        jsonb, jsonb, bigint, text, integer, integer),
    commonplace.store_columns(uuid, uuid, text, text, boolean, boolean, text, integer, uuid[], uuid[], text[], text[], text[], text[],
        integer[], uuid[], uuid[], text[], text[], text[], text[], text[], bigint[], text[], integer[], integer[]),
    commonplace.ingest_batch_v2(uuid, uuid, uuid, text, text, boolean, boolean, jsonb, integer[], uuid[], uuid[], text[], text[], text[],
        text[], text[], bigint[], text[], integer[], integer[])
TO commonplace_runtime;
