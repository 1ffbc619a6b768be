-- What the api calls: authentication, and one function per hot path.
-- Each SECURITY INVOKER function sets the team first, works under row-level security and its own predicates,
-- and audits in the same transaction. What a caller must put right is raised as
--   CM100  not permitted; the message is for the caller
--   CM101  no project was named and none can be assumed; DETAIL is the item's position, from 0
-- Rows leave as jsonb in the shape of the wire: camelCase, times in epoch milliseconds.

-- Who holds the token, what the team may still do, and the count of this request: one round trip.
-- p_token_hash: SHA-256 of the whole token, hexadecimal. NULL: no key that is good at this moment.
-- Returns {"keyId", "teamId", "teamSlug", "projectId"|null, "project"|null, "actor", "scopes",
--   "minute": {"limit", "requests", "resetEpoch", "secondsLeft"}|null,
--   "month": {"requests", "requestCap"|null, "tokens", "tokenCap"|null}|null}; month.requests is without this one.
-- A request over its rate or its month is refused by the caller of this function and not metered here.
CREATE FUNCTION commonplace.authenticate_v1(p_token_hash text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known record;
    minute_start timestamptz := date_trunc('minute', now());
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    in_minute bigint;
    used_requests bigint;
    used_tokens bigint;
    minute_use jsonb;
    month_use jsonb;
BEGIN
    SELECT k.id, k.team_id, t.slug, k.project_id, p.name AS project, k.actor, k.scopes, k.last_used_at,
        l.requests_per_minute, l.requests_per_month, l.tokens_per_month, coalesce(l.metered, false) AS metered
    INTO known
    FROM commonplace.api_keys k
    JOIN commonplace.teams t ON t.id = k.team_id AND t.detached_at IS NULL
    LEFT JOIN commonplace.projects p ON p.id = k.project_id
    LEFT JOIN commonplace.team_limits l ON l.team_id = k.team_id
    WHERE k.token_hash = p_token_hash
        AND (k.state IN ('unpublished', 'published') OR (k.state = 'grace' AND k.grace_until > now()))
        AND (k.expires_at IS NULL OR k.expires_at > now());
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    IF known.requests_per_minute IS NOT NULL THEN
        INSERT INTO commonplace.rate_counters AS c (team_id, key_id, window_start, requests)
        VALUES (known.team_id, known.id, minute_start, 1)
        ON CONFLICT (key_id, window_start) DO UPDATE SET requests = c.requests + 1
        RETURNING requests INTO in_minute;
        minute_use := jsonb_build_object('limit', known.requests_per_minute, 'requests', in_minute,
            'resetEpoch', extract(epoch FROM minute_start)::bigint + 60,
            'secondsLeft', greatest(1, ceil(extract(epoch FROM minute_start + interval '1 minute' - clock_timestamp()))::bigint));
    END IF;
    IF known.metered THEN
        SELECT coalesce(sum(quantity) FILTER (WHERE kind = 'request'), 0),
            coalesce(sum(quantity) FILTER (WHERE kind = 'tokens'), 0) INTO used_requests, used_tokens
        FROM commonplace.usage_counters
        WHERE team_id = known.team_id AND usage_counters.month = this_month AND kind IN ('request', 'tokens');
        month_use := jsonb_build_object('requests', used_requests, 'requestCap', known.requests_per_month,
            'tokens', used_tokens, 'tokenCap', known.tokens_per_month);
        IF (in_minute IS NULL OR in_minute <= known.requests_per_minute)
            AND (known.requests_per_month IS NULL OR used_requests < known.requests_per_month) THEN
            INSERT INTO commonplace.usage_counters AS u (team_id, project_id, key_id, month, kind, quantity)
            VALUES (known.team_id, known.project_id, known.id, this_month, 'request', 1)
            ON CONFLICT (team_id, month, kind, project_id, key_id, model)
                DO UPDATE SET quantity = u.quantity + 1, updated_at = now();
        END IF;
    END IF;
    IF known.last_used_at IS NULL OR known.last_used_at < now() - interval '1 minute' THEN
        -- SKIP LOCKED: a request never waits for the operator's lock on the key, nor for its twin.
        UPDATE commonplace.api_keys SET last_used_at = now() WHERE id = (
            SELECT id FROM commonplace.api_keys WHERE id = known.id FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    RETURN jsonb_build_object('keyId', known.id, 'teamId', known.team_id, 'teamSlug', known.slug, 'projectId', known.project_id,
        'project', known.project, 'actor', known.actor, 'scopes', to_jsonb(known.scopes), 'minute', minute_use, 'month', month_use);
END
$$;
GRANT EXECUTE ON FUNCTION commonplace.authenticate_v1(text) TO commonplace_runtime;

CREATE FUNCTION commonplace.epoch_ms(p_time timestamptz) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN floor(extract(epoch FROM p_time) * 1000)::bigint;

-- In plpgsql: the planner would inline a SQL function and fold the cast of a constant before it asks whether it is valid.
CREATE FUNCTION commonplace.uuid_or_null(p_text text) RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_input_is_valid(p_text, 'uuid') THEN
        RETURN p_text::uuid;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION commonplace.event_json(e commonplace.events) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object('id', e.id, 'projectId', e.project_id, 'teamId', e.team_id, 'serverSessionId', e.session_id,
    'sourceAdapter', e.source_adapter, 'sourceEventId', e.source_event_id, 'eventType', e.event_type,
    'platformSource', e.platform_source, 'payload', e.payload, 'metadata', e.metadata,
    'privateParts', e.private_parts, 'redactedSecrets', e.redacted_secrets,
    'occurredAtEpoch', commonplace.epoch_ms(e.occurred_at), 'receivedAtEpoch', commonplace.epoch_ms(e.received_at),
    'createdAtEpoch', commonplace.epoch_ms(e.created_at));

CREATE FUNCTION commonplace.job_json(j commonplace.jobs) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object('id', j.id, 'projectId', j.project_id, 'teamId', j.team_id, 'sourceType', j.source_type,
    'sourceId', j.source_id, 'agentEventId', j.event_id, 'serverSessionId', j.session_id, 'jobType', j.job_type,
    'status', j.status, 'attempts', j.attempts, 'maxAttempts', j.max_attempts,
    'nextAttemptAtEpoch', CASE WHEN j.status = 'queued' AND j.attempts > 0 THEN commonplace.epoch_ms(j.run_after) END,
    'completedAtEpoch', commonplace.epoch_ms(j.completed_at), 'failedAtEpoch', commonplace.epoch_ms(j.failed_at),
    'cancelledAtEpoch', commonplace.epoch_ms(j.cancelled_at), 'lastError', j.last_error,
    'createdAtEpoch', commonplace.epoch_ms(j.created_at), 'updatedAtEpoch', commonplace.epoch_ms(j.updated_at));

CREATE FUNCTION commonplace.memory_json(m commonplace.memories) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('id', m.id, 'projectId', m.project_id, 'teamId', m.team_id, 'serverSessionId', m.session_id,
    'kind', m.kind, 'title', m.title, 'content', m.content, 'metadata', m.metadata,
    'createdAtEpoch', commonplace.epoch_ms(m.created_at), 'updatedAtEpoch', commonplace.epoch_ms(m.updated_at),
    'sources', (SELECT coalesce(jsonb_agg(jsonb_build_object('sourceType', s.source_type, 'sourceId', s.source_id)
            ORDER BY s.created_at, s.source_id), '[]')
        FROM commonplace.memory_sources s WHERE s.team_id = m.team_id AND s.memory_id = m.id));

-- The project that a caller means: an id or a name; NULL means the key's own, or else the team's only one.
-- Returns NULL where the team has no such project. CM100: the key is bound to another. CM101: nothing to assume.
CREATE FUNCTION commonplace.resolve_project(p_team_id uuid, p_key_project uuid, p_named text, p_position bigint) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
BEGIN
    IF p_key_project IS NOT NULL AND (p_named IS NULL OR p_named = p_key_project::text) THEN
        RETURN p_key_project;
    END IF;
    IF p_named IS NULL THEN
        SELECT min(id::text)::uuid INTO meant FROM commonplace.projects WHERE team_id = p_team_id HAVING count(*) = 1;
        IF meant IS NULL THEN
            RAISE EXCEPTION 'projectId is required' USING ERRCODE = 'CM101', DETAIL = p_position::text;
        END IF;
        RETURN meant;
    END IF;
    SELECT id INTO meant FROM commonplace.projects WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_named);
    IF NOT FOUND THEN
        SELECT id INTO meant FROM commonplace.projects WHERE team_id = p_team_id AND name = p_named;
    END IF;
    IF p_key_project IS NOT NULL AND meant IS DISTINCT FROM p_key_project THEN
        RAISE EXCEPTION 'API key is scoped to a different project' USING ERRCODE = 'CM100';
    END IF;
    RETURN meant;
END
$$;

-- The session an event belongs to: the one it names (CM100 if that is not in the project), or the newest with its
-- contentSessionId, on its platform where it says one. NULL: none, and the event is stored unlinked.
CREATE FUNCTION commonplace.link_session(p_team_id uuid, p_project_id uuid, p_event jsonb) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    linked uuid;
BEGIN
    IF p_event ->> 'serverSessionId' IS NOT NULL THEN
        SELECT id INTO linked FROM commonplace.sessions WHERE team_id = p_team_id AND project_id = p_project_id
            AND id = commonplace.uuid_or_null(p_event ->> 'serverSessionId');
        IF NOT FOUND THEN
            RAISE EXCEPTION 'server_session_id must belong to project_id and team_id' USING ERRCODE = 'CM100';
        END IF;
    ELSIF p_event ->> 'contentSessionId' IS NOT NULL THEN
        SELECT id INTO linked FROM commonplace.sessions
        WHERE team_id = p_team_id AND project_id = p_project_id AND content_session_id = p_event ->> 'contentSessionId'
            AND (NOT (p_event ->> 'platformGiven')::boolean OR platform_source IS NOT DISTINCT FROM p_event ->> 'platformSource')
        ORDER BY started_at DESC LIMIT 1;
    END IF;
    RETURN linked;
END
$$;

-- The group that orders an event's job. The actor is part of it: one group is one model call, and what one actor wrote
-- must not end in another's memory. Its length comes first, so that no choice of names makes two actors' keys equal.
-- Keys are bounded: a btree row holds 2,700 bytes.
CREATE FUNCTION commonplace.session_key(p_event_id uuid, p_session_id uuid, p_content_session_id text, p_platform text, p_actor text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT CASE WHEN octet_length(key) > 500 THEN left(key, 2) || '#' || encode(sha256(convert_to(key, 'UTF8')), 'hex') ELSE key END
    FROM (SELECT CASE
        WHEN p_session_id IS NOT NULL THEN 's:' || p_session_id || ':' || p_actor
        WHEN p_content_session_id IS NULL THEN 'e:' || p_event_id
        ELSE 'c:' || length(p_actor) || ':' || p_actor || ':' || coalesce(p_platform, '-') || ':' || p_content_session_id
    END) AS whole (key));

-- The job of one event, made at most once, and its group marked as having work at p_run_after.
-- A leased group is not made claimable: its worker looks again when it lets go.
CREATE FUNCTION commonplace.queue_event(p_event commonplace.events, p_job_id uuid, p_key_id uuid, p_request_id text,
    p_run_after timestamptz) RETURNS commonplace.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs;
    group_key text := commonplace.session_key(p_event.id, p_event.session_id, p_event.content_session_id,
        p_event.platform_source, p_event.actor);
BEGIN
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_event.team_id AND project_id = p_event.project_id
        AND source_type = 'agent_event' AND source_id = p_event.id AND job_type = 'observation_generate_for_event';
    IF FOUND THEN
        RETURN job;
    END IF;
    INSERT INTO commonplace.job_groups AS g (team_id, project_id, session_key, available_at)
    VALUES (p_event.team_id, p_event.project_id, group_key, p_run_after)
    ON CONFLICT (team_id, project_id, session_key) DO UPDATE SET available_at = CASE
        WHEN g.lease_until > now() THEN g.available_at
        ELSE least(coalesce(g.available_at, 'infinity'), excluded.available_at) END;
    INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, session_id, event_id, source_type, source_id, job_type,
        run_after, key_id, actor, request_id)
    VALUES (p_job_id, p_event.team_id, p_event.project_id, group_key, p_event.session_id, p_event.id, 'agent_event', p_event.id,
        'observation_generate_for_event', p_run_after, p_key_id, p_event.actor, p_request_id)
    RETURNING * INTO job;
    RETURN job;
END
$$;

-- Store events with their jobs, group marks and audit row: all of them or none.
-- p_events: [{"id", "jobId", "project"|null, "serverSessionId"|null, "contentSessionId"|null, "platformGiven", "platformSource"|null,
--   "sourceAdapter", "sourceEventId"|null, "eventType", "payload", "metadata", "occurredAt" (ms), "digest", "privateParts",
--   "redactedSecrets"}]; the digest says what "the same event" means inside one project.
-- Returns [{"event", "job"|null}] in the order given. The same event again: its first row and job, metadata merged.
CREATE FUNCTION commonplace.ingest_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_generate boolean, p_batch boolean, p_events jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    item record;
    event commonplace.events;
    job commonplace.jobs;
    delay_seconds integer;
    group_key text;
    locked_project uuid;
    locked_key text;
    answers jsonb[] := '{}';
    job_ids uuid[] := '{}';
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    -- Debounced and end-of-session teams wait out their window; what becomes due meanwhile is served by one call.
    SELECT CASE generation_mode WHEN 'per-event' THEN 0 ELSE generation_window_seconds END INTO delay_seconds
        FROM commonplace.teams WHERE id = p_team_id;
    FOR item IN
        SELECT given, place, project_id, session_id
        FROM jsonb_array_elements(p_events) WITH ORDINALITY AS listed (given, place)
        CROSS JOIN LATERAL commonplace.resolve_project(p_team_id, p_key_project, given ->> 'project', place - 1) AS project_id
        CROSS JOIN LATERAL commonplace.link_session(p_team_id, project_id, given) AS session_id
        -- One order of locks for everybody, so that batches over the same events cannot deadlock: a session's group
        -- comes before its events, which keep their order; events without a session stand in the order of their keys.
        ORDER BY project_id, session_id, given ->> 'platformSource', given ->> 'contentSessionId',
            CASE WHEN session_id IS NULL AND given ->> 'contentSessionId' IS NULL THEN given ->> 'digest' END, place
    LOOP
        IF item.project_id IS NULL THEN
            RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
        END IF;
        IF p_batch AND p_generate AND coalesce(item.session_id::text, item.given ->> 'contentSessionId') IS NOT NULL THEN
            group_key := commonplace.session_key(NULL, item.session_id, item.given ->> 'contentSessionId',
                item.given ->> 'platformSource', p_actor);
            IF (item.project_id, group_key) IS DISTINCT FROM (locked_project, locked_key) THEN
                INSERT INTO commonplace.job_groups AS g (team_id, project_id, session_key)
                VALUES (p_team_id, item.project_id, group_key)
                ON CONFLICT (team_id, project_id, session_key) DO UPDATE SET available_at = g.available_at;
                locked_project := item.project_id;
                locked_key := group_key;
            END IF;
        END IF;
        INSERT INTO commonplace.events AS e (id, team_id, project_id, session_id, content_session_id, source_adapter,
            source_event_id, idempotency_key, event_type, platform_source, actor, key_id, payload, metadata,
            private_parts, redacted_secrets, occurred_at)
        VALUES ((item.given ->> 'id')::uuid, p_team_id, item.project_id, item.session_id, item.given ->> 'contentSessionId',
            item.given ->> 'sourceAdapter', item.given ->> 'sourceEventId', item.project_id || ':' || (item.given ->> 'digest'),
            item.given ->> 'eventType', item.given ->> 'platformSource', p_actor, p_key_id,
            item.given -> 'payload', item.given -> 'metadata', (item.given ->> 'privateParts')::integer,
            (item.given ->> 'redactedSecrets')::integer, to_timestamp((item.given ->> 'occurredAt')::bigint / 1000.0))
        ON CONFLICT (team_id, idempotency_key) DO UPDATE SET metadata = e.metadata || excluded.metadata,
            platform_source = coalesce(e.platform_source, excluded.platform_source)
        RETURNING * INTO event;
        job := NULL;
        IF p_generate THEN
            job := commonplace.queue_event(event, (item.given ->> 'jobId')::uuid, p_key_id, p_request_id,
                now() + make_interval(secs => delay_seconds));
            job_ids := job_ids || job.id;
        END IF;
        answers[item.place] := jsonb_build_object('event', commonplace.event_json(event),
            'job', CASE WHEN p_generate THEN commonplace.job_json(job) END);
    END LOOP;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    SELECT p_team_id, CASE WHEN p_batch THEN p_key_project ELSE event.project_id END, p_key_id, p_actor, p_request_id,
        CASE WHEN p_batch THEN 'event.batch_received' ELSE 'event.received' END, 'agent_event',
        CASE WHEN NOT p_batch THEN event.id::text END,
        jsonb_build_object('requestId', p_request_id) || CASE WHEN p_batch
            THEN jsonb_build_object('eventCount', cardinality(answers), 'generationJobIds', to_jsonb(job_ids))
            ELSE jsonb_build_object('sourceAdapter', event.source_adapter, 'sourceEventId', event.source_event_id,
                'eventType', event.event_type, 'serverSessionId', event.session_id, 'generationJobId', job_ids[1]) END;
    RETURN to_jsonb(answers);
END
$$;

-- One event of the team, in the shape of the wire, or NULL.
CREATE FUNCTION commonplace.get_event_v1(p_team_id uuid, p_event_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT commonplace.event_json(e) FROM commonplace.events e
            WHERE e.team_id = p_team_id AND e.id = commonplace.uuid_or_null(p_event_id));
END
$$;

-- Those of the jobs that the team has (and, with p_key_project, that project): {id: job}.
CREATE FUNCTION commonplace.get_jobs_v1(p_team_id uuid, p_key_project uuid, p_job_ids text[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT coalesce(jsonb_object_agg(j.id, commonplace.job_json(j)), '{}') FROM commonplace.jobs j
            WHERE j.team_id = p_team_id AND (p_key_project IS NULL OR j.project_id = p_key_project)
                AND j.id IN (SELECT commonplace.uuid_or_null(given) FROM unnest(p_job_ids) AS given));
END
$$;

-- Whether a memory came from a platform: its session's, or without one that of any source event.
CREATE FUNCTION commonplace.is_from_platform(p_team_id uuid, p_memory_id uuid, p_session_id uuid, p_platform text) RETURNS boolean
LANGUAGE sql STABLE
RETURN CASE WHEN p_session_id IS NOT NULL
    THEN EXISTS (SELECT FROM commonplace.sessions s
        WHERE s.team_id = p_team_id AND s.id = p_session_id AND s.platform_source = p_platform)
    ELSE EXISTS (SELECT FROM commonplace.memory_sources ms
        JOIN commonplace.events e ON e.team_id = p_team_id AND e.id = ms.event_id
        WHERE ms.team_id = p_team_id AND ms.memory_id = p_memory_id AND e.platform_source = p_platform)
END;

-- The ranking, simple and temporary: any of the words, each worth its rarity in the project times where it stands
-- (title, keywords, content, parts of identifiers), and at most a twentieth more for being recent.
-- A superseded memory that matches gives its place to its successor.
CREATE FUNCTION commonplace.ranked_memories(p_team_id uuid, p_project_id uuid, p_actor text, p_query text, p_limit integer,
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
    ), size AS (
        SELECT count(*) AS memories FROM commonplace.memories WHERE team_id = p_team_id AND project_id = p_project_id
    ), rarity AS (
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
        FROM chain c JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = c.superseded_by
            AND m.project_id = p_project_id AND (m.visibility = 'team' OR m.owner_actor = p_actor)
        WHERE c.depth < 20
    )
    SELECT id, max(score)::double precision FROM chain WHERE superseded_by IS NULL
    GROUP BY id ORDER BY 2 DESC, id DESC LIMIT p_limit;
$$;

-- Recall: what p_mode (search, context, recent) serves, and its audit row.
-- p_project: id or name or NULL. p_query NULL: the newest. p_platform NULL: every platform. p_via NULL: REST.
-- Returns the observations, best first. A project that the team does not have holds nothing.
CREATE FUNCTION commonplace.recall_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
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
        SELECT array_agg(newest.id) INTO ids FROM (
            SELECT m.id FROM commonplace.memories m
            WHERE m.team_id = p_team_id AND m.project_id = meant AND (m.visibility = 'team' OR m.owner_actor = p_actor)
                AND m.superseded_by IS NULL
                AND (p_platform IS NULL OR commonplace.is_from_platform(p_team_id, m.id, m.session_id, p_platform))
            ORDER BY m.number DESC LIMIT p_limit) newest;
    END IF;
    SELECT coalesce(jsonb_agg(commonplace.memory_json(m) || jsonb_build_object('score', round(scores[place]::numeric, 6))
        ORDER BY place), '[]') INTO answer
    FROM unnest(ids) WITH ORDINALITY AS hit (id, place) JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = hit.id;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
        jsonb_build_object('mode', p_mode, 'limit', p_limit, 'resultCount', coalesce(cardinality(ids), 0),
            'observationIds', to_jsonb(coalesce(ids, '{}')), 'requestId', p_request_id)
        || jsonb_strip_nulls(jsonb_build_object('query', p_query, 'platformSource', p_platform, 'via', p_via)));
    RETURN answer;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.split_identifiers(text),
    commonplace.memory_lexemes(text, text[], text[], text),
    commonplace.epoch_ms(timestamptz),
    commonplace.uuid_or_null(text),
    commonplace.event_json(commonplace.events),
    commonplace.job_json(commonplace.jobs),
    commonplace.memory_json(commonplace.memories),
    commonplace.resolve_project(uuid, uuid, text, bigint),
    commonplace.link_session(uuid, uuid, jsonb),
    commonplace.session_key(uuid, uuid, text, text, text),
    commonplace.queue_event(commonplace.events, uuid, uuid, text, timestamptz),
    commonplace.ingest_v1(uuid, uuid, uuid, text, text, boolean, boolean, jsonb),
    commonplace.get_event_v1(uuid, text),
    commonplace.get_jobs_v1(uuid, uuid, text[]),
    commonplace.is_from_platform(uuid, uuid, uuid, text),
    commonplace.ranked_memories(uuid, uuid, text, text, integer, text),
    commonplace.recall_v1(uuid, uuid, uuid, text, text, text, text, text, integer, text, text)
TO commonplace_runtime;
