-- Capture: events under a policy, and sessions. Functions of 0003 by the same name end here.
-- Lock order everywhere: group, events, jobs, session, counters.

-- What makes two starts one session, inside a project: a digest, because names have any length. No route wrote a session
-- before this version, so none needs one made up.
ALTER TABLE commonplace.sessions ADD COLUMN identity text, ADD COLUMN prompt_actor text;
COMMENT ON COLUMN commonplace.sessions.prompt_actor IS 'Who wrote the prompt of the metadata: nobody else''s memories are told of it.';
COMMENT ON COLUMN commonplace.sessions.identity IS 'SHA-256 of what the client named it by; NULL: every start is another session.';
-- Not dropped: with a dropped column Postgres 18.4 misreads long values in `RETURNING * INTO` a row ("invalid memory alloc request").
COMMENT ON COLUMN commonplace.sessions.generation_status IS 'Not kept: generation_status() reads it from the session''s groups.';
CREATE UNIQUE INDEX sessions_identity ON commonplace.sessions (team_id, project_id, identity);
DROP INDEX commonplace.sessions_external;
CREATE INDEX events_of_session ON commonplace.events (team_id, session_id, number) WHERE session_id IS NOT NULL;

-- Adds p_added open jobs to a group, which is made where it is missing, and says when it may be claimed. Locks it; with
-- p_added = 0 that is all. A leased group stays leased: its worker looks again when it lets go. A group that is due stays
-- due: it has waited for its turn, and a policy takes back nothing.
CREATE FUNCTION commonplace.add_waiting(p_team_id uuid, p_project_id uuid, p_session_key text, p_session_id uuid, p_mode text,
    p_window_seconds integer, p_added integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO commonplace.job_groups AS g (team_id, project_id, session_key, session_id, waiting, waiting_since, available_at)
    VALUES (p_team_id, p_project_id, p_session_key, p_session_id, p_added, CASE WHEN p_added > 0 THEN now() END,
        CASE WHEN p_added > 0 THEN commonplace.policy_due(p_mode, p_window_seconds, p_added, now(), now()) END)
    ON CONFLICT (team_id, project_id, session_key) DO UPDATE SET
        session_id = coalesce(g.session_id, excluded.session_id),
        waiting = least(g.waiting + p_added, 1000),
        waiting_since = coalesce(g.waiting_since, excluded.waiting_since),
        available_at = CASE WHEN p_added = 0 OR g.lease_until > now() OR g.available_at <= now() THEN g.available_at
            ELSE commonplace.policy_due(p_mode, p_window_seconds, g.waiting + p_added, coalesce(g.waiting_since, now()), now()) END;
END
$$;

-- Give the group back, with p_state for its next call (NULL: as it was; an event without a session has no next call). The caller holds its row lock, so every ingest
-- into it has either committed, and the fresh snapshot of this statement sees its job, or comes later and wakes the group.
-- The oldest open job decides: while it waits for its retry, younger ones of the session wait behind it.
CREATE FUNCTION commonplace.let_go(p_team_id uuid, p_project_id uuid, p_session_key text, p_state jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    team commonplace.teams;
    oldest commonplace.jobs;
    newest_at timestamptz;
    open_jobs integer := 0;
    due timestamptz;
BEGIN
    SELECT * INTO oldest FROM commonplace.jobs WHERE team_id = p_team_id AND project_id = p_project_id
        AND session_key = p_session_key AND status IN ('queued', 'processing') ORDER BY number LIMIT 1;
    IF FOUND THEN
        SELECT count(*) INTO open_jobs FROM (SELECT FROM commonplace.jobs WHERE team_id = p_team_id AND project_id = p_project_id
            AND session_key = p_session_key AND status IN ('queued', 'processing') LIMIT 1000) AS open;
        IF oldest.status = 'processing' THEN
            due := now();
        ELSIF oldest.attempts > 0 OR oldest.last_error IS NOT NULL THEN
            due := oldest.run_after;
        ELSE
            SELECT * INTO team FROM commonplace.teams WHERE id = p_team_id;
            SELECT created_at INTO newest_at FROM commonplace.jobs WHERE team_id = p_team_id AND project_id = p_project_id
                AND session_key = p_session_key AND status IN ('queued', 'processing') ORDER BY number DESC LIMIT 1;
            due := CASE
                WHEN team.generation_mode = 'per-event' OR p_session_key LIKE 'e:%' THEN now()
                -- An end lets everything go that came before it.
                WHEN EXISTS (SELECT FROM commonplace.jobs WHERE team_id = p_team_id AND project_id = p_project_id
                    AND session_key = p_session_key AND status = 'queued' AND source_type = 'session_summary') THEN now()
                WHEN EXISTS (SELECT FROM commonplace.sessions WHERE team_id = p_team_id AND id = oldest.session_id
                    AND ended_at >= newest_at) THEN now()
                ELSE commonplace.policy_due(team.generation_mode, team.generation_window_seconds, open_jobs,
                    oldest.created_at, newest_at) END;
        END IF;
    END IF;
    UPDATE commonplace.job_groups SET lease_until = NULL, leased_by = NULL, available_at = due, waiting = open_jobs,
        waiting_since = oldest.created_at,
        state = CASE WHEN p_session_key LIKE 'e:%' THEN state ELSE coalesce(p_state, state) END,
        state_at = CASE WHEN p_session_key LIKE 'e:%' OR p_state IS NULL THEN state_at ELSE now() END
    WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
END
$$;

CREATE OR REPLACE FUNCTION commonplace.free_group(p_team_id uuid, p_project_id uuid, p_session_key text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS 'SELECT commonplace.let_go(p_team_id, p_project_id, p_session_key, NULL)';

-- Who leaves a policy of waiting does not wait for it once more. What waits for its retry goes on waiting.
CREATE FUNCTION commonplace.release_waiting() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- In the order in which a batch of events locks them.
    WITH held_back AS (
        SELECT project_id, session_key FROM commonplace.job_groups g
        WHERE g.team_id = NEW.id AND g.available_at > now() AND g.lease_until IS NULL AND (
            SELECT j.attempts = 0 AND j.last_error IS NULL FROM commonplace.jobs j WHERE j.team_id = g.team_id
                AND j.project_id = g.project_id AND j.session_key = g.session_key AND j.status IN ('queued', 'processing')
            ORDER BY j.number LIMIT 1)
        ORDER BY project_id, session_id, session_key FOR UPDATE)
    UPDATE commonplace.job_groups g SET available_at = now() FROM held_back
        WHERE g.team_id = NEW.id AND g.project_id = held_back.project_id AND g.session_key = held_back.session_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER release_waiting AFTER UPDATE OF generation_mode ON commonplace.teams FOR EACH ROW
    WHEN (OLD.generation_mode <> 'per-event' AND NEW.generation_mode = 'per-event')
    EXECUTE FUNCTION commonplace.release_waiting();

-- The trigger waits for groups, while an ingest that holds them waits to name the team as its rows' own: which it may, unless
-- put_team_v1 locks the team against that too.
DO $$
DECLARE
    putting text := pg_get_functiondef((SELECT oid FROM pg_proc WHERE pronamespace = 'commonplace'::regnamespace AND proname = 'put_team_v1'));
BEGIN
    EXECUTE replace(putting, 'FOR UPDATE;', 'FOR NO KEY UPDATE;');
END
$$;

-- The job of one event, made at most once, and its group told. A group by the key p_counted is told by the caller, who
-- holds it locked: one change for a whole batch. An event without a session never waits for others.
DROP FUNCTION commonplace.queue_event(commonplace.events, uuid, uuid, text, timestamptz);
CREATE FUNCTION commonplace.queue_event(p_event commonplace.events, p_job_id uuid, p_key_id uuid, p_request_id text, p_mode text,
    p_window_seconds integer, p_is_awaited boolean, p_counted text) RETURNS commonplace.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs;
    group_key text := commonplace.session_key(p_event.id, p_event.session_id, p_event.content_session_id,
        p_event.platform_source, p_event.actor);
    mode text := CASE WHEN group_key LIKE 'e:%' THEN 'per-event' ELSE p_mode END;
BEGIN
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_event.team_id AND project_id = p_event.project_id
        AND source_type = 'agent_event' AND source_id = p_event.id AND job_type = 'observation_generate_for_event';
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

-- Store events with their jobs, group marks and audit row: all of them or none.
-- p_events: [{"id", "jobId", "project"|null, "serverSessionId"|null, "contentSessionId"|null, "platformGiven", "platformSource"|null,
--   "sourceAdapter", "sourceEventId"|null, "eventType", "payload", "metadata", "occurredAt" (ms), "digest", "privateParts",
--   "redactedSecrets"}]; the digest says what "the same event" means inside one project.
-- p_awaited: somebody waits for the jobs and is to be notified; the version before did not say, and may.
-- Returns [{"event", "job"|null}] in the order given. The same event again: its first row and job, metadata merged.
-- An event that came before its session was started stays unlinked, in the group of its contentSessionId.
DROP FUNCTION commonplace.ingest_v1(uuid, uuid, uuid, text, text, boolean, boolean, jsonb);
CREATE FUNCTION commonplace.ingest_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_generate boolean, p_batch boolean, p_events jsonb, p_awaited boolean DEFAULT true)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    item record;
    event commonplace.events;
    job commonplace.jobs;
    policy record;
    group_key text;
    locked record;
    added integer := 0;
    answers jsonb[] := '{}';
    job_ids uuid[] := '{}';
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT generation_mode AS mode, generation_window_seconds AS window_seconds INTO policy FROM commonplace.teams WHERE id = p_team_id;
    SELECT NULL::uuid AS project_id, NULL::text AS key, NULL::uuid AS session_id INTO locked;
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
            IF (item.project_id, group_key) IS DISTINCT FROM (locked.project_id, locked.key) THEN
                IF added > 0 THEN
                    PERFORM commonplace.add_waiting(p_team_id, locked.project_id, locked.key, locked.session_id, policy.mode,
                        policy.window_seconds, added);
                END IF;
                PERFORM commonplace.add_waiting(p_team_id, item.project_id, group_key, item.session_id, policy.mode,
                    policy.window_seconds, 0);
                SELECT item.project_id, group_key AS key, item.session_id INTO locked;
                added := 0;
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
            job := commonplace.queue_event(event, (item.given ->> 'jobId')::uuid, p_key_id, p_request_id, policy.mode,
                policy.window_seconds, p_awaited,
                CASE WHEN item.project_id = locked.project_id THEN locked.key END);
            IF job.id = (item.given ->> 'jobId')::uuid AND job.session_key = locked.key AND job.project_id = locked.project_id THEN
                added := added + 1;
            END IF;
            job_ids := job_ids || job.id;
        END IF;
        answers[item.place] := jsonb_build_object('event', commonplace.event_json(event),
            'job', CASE WHEN p_generate THEN commonplace.job_json(job) END);
    END LOOP;
    IF added > 0 THEN
        PERFORM commonplace.add_waiting(p_team_id, locked.project_id, locked.key, locked.session_id, policy.mode,
            policy.window_seconds, added);
    END IF;
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

-- What generation does for a session, read from its groups: processing, queued, completed (nothing is open and something was
-- made), idle (nothing was ever done).
CREATE FUNCTION commonplace.generation_status(s commonplace.sessions) RETURNS text LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN bool_or(g.lease_until > now()) THEN 'processing' WHEN bool_or(g.waiting > 0) THEN 'queued'
        WHEN s.last_generated_at IS NOT NULL THEN 'completed' ELSE 'idle' END
    FROM commonplace.job_groups g WHERE g.team_id = s.team_id AND g.session_id = s.id);

CREATE FUNCTION commonplace.session_json(s commonplace.sessions) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('id', s.id, 'projectId', s.project_id, 'teamId', s.team_id, 'externalSessionId', s.external_session_id,
    'contentSessionId', s.content_session_id, 'agentId', s.agent_id, 'agentType', s.agent_type, 'platformSource', s.platform_source,
    'generationStatus', commonplace.generation_status(s), 'metadata', s.metadata,
    'startedAtEpoch', commonplace.epoch_ms(s.started_at), 'endedAtEpoch', commonplace.epoch_ms(s.ended_at),
    'lastGeneratedAtEpoch', commonplace.epoch_ms(s.last_generated_at),
    'createdAtEpoch', commonplace.epoch_ms(s.created_at), 'updatedAtEpoch', commonplace.epoch_ms(s.updated_at));

-- A session's metadata after another start: what it says wins, what it leaves out stays. `prompt` is the newest prompt;
-- from the second one on `prompts` lists the newest 50, each on 2,000 characters at most. Beyond 256 kB it begins anew.
CREATE FUNCTION commonplace.merge_session(p_known jsonb, p_given jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN CASE WHEN p_given = '{}' THEN p_known ELSE
    CASE WHEN octet_length(p_known::text) <= 262144 THEN p_known ELSE '{}' END || p_given
    || CASE WHEN jsonb_typeof(p_given -> 'prompt') <> 'string' OR NOT p_given ? 'prompt' THEN '{}' ELSE
        (SELECT jsonb_build_object('prompts', jsonb_agg(prompt ORDER BY place)) FROM (
            SELECT prompt, place FROM jsonb_array_elements(
                CASE WHEN jsonb_typeof(p_known -> 'prompts') = 'array' THEN p_known -> 'prompts'
                    WHEN jsonb_typeof(p_known -> 'prompt') = 'string' THEN jsonb_build_array(left(p_known ->> 'prompt', 2000))
                    ELSE '[]' END || jsonb_build_array(left(p_given ->> 'prompt', 2000))) WITH ORDINALITY AS listed (prompt, place)
            ORDER BY place DESC LIMIT 50) AS newest) END
END;

-- Start a session, or go on with the one of the same identity: it is open again, and what this call says of it wins.
-- p_session: {"id", "identity"|null, "project"|null, "externalSessionId"|null, "contentSessionId"|null, "agentId"|null,
--   "agentType"|null, "platformSource"|null, "metadata"}.
-- Returns {"session", "created": whether it is to be answered as a new one}. Only an external id is answered as known.
-- Events that came before, under its contentSessionId, stay where they are.
CREATE FUNCTION commonplace.start_session_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_session jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
    started commonplace.sessions;
    is_created boolean;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_session ->> 'project', 0);
    IF meant IS NULL THEN
        RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
    END IF;
    INSERT INTO commonplace.sessions AS s (id, team_id, project_id, identity, external_session_id, content_session_id, agent_id,
        agent_type, platform_source, metadata, prompt_actor)
    VALUES ((p_session ->> 'id')::uuid, p_team_id, meant, p_session ->> 'identity', p_session ->> 'externalSessionId',
        p_session ->> 'contentSessionId', p_session ->> 'agentId', p_session ->> 'agentType', p_session ->> 'platformSource',
        p_session -> 'metadata', CASE WHEN p_session -> 'metadata' ? 'prompt' THEN p_actor END)
    ON CONFLICT (team_id, project_id, identity) DO UPDATE SET
        content_session_id = coalesce(excluded.content_session_id, s.content_session_id),
        agent_id = coalesce(excluded.agent_id, s.agent_id),
        agent_type = coalesce(excluded.agent_type, s.agent_type),
        metadata = commonplace.merge_session(s.metadata, excluded.metadata),
        prompt_actor = coalesce(excluded.prompt_actor, s.prompt_actor),
        ended_at = NULL, updated_at = now()
    RETURNING * INTO started;
    is_created := started.id = (p_session ->> 'id')::uuid OR started.external_session_id IS NULL;
    IF is_created THEN
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, meant, p_key_id, p_actor, p_request_id, action, 'server_session', started.id::text,
            jsonb_build_object('requestId', p_request_id)
        FROM unnest(ARRAY['session.write', 'session.start']) AS action;
    END IF;
    RETURN jsonb_build_object('session', commonplace.session_json(started), 'created', is_created);
END
$$;

-- One session of the team, in the shape of the wire, or NULL.
CREATE FUNCTION commonplace.get_session_v1(p_team_id uuid, p_session_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT commonplace.session_json(s) FROM commonplace.sessions s
            WHERE s.team_id = p_team_id AND s.id = commonplace.uuid_or_null(p_session_id));
END
$$;

-- The job that sums up a session as it is now: the newest one, where nothing was captured since it was asked for. One that is
-- still queued is moved behind what it now covers; else there is a further one. The caller holds groups and session locked.
CREATE FUNCTION commonplace.queue_summary(p_session commonplace.sessions, p_session_key text, p_job_id uuid, p_key_id uuid, p_actor text,
    p_request_id text) RETURNS commonplace.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs;
    newest bigint;
BEGIN
    SELECT coalesce(max(number), 0) INTO newest FROM commonplace.events WHERE team_id = p_session.team_id AND session_id = p_session.id;
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_session.team_id AND project_id = p_session.project_id
        AND source_type = 'session_summary' AND source_id = p_session.id AND job_type = 'observation_generate_session_summary'
        ORDER BY revision DESC LIMIT 1;
    IF job.id IS NOT NULL AND newest <= job.covers_event THEN
        RETURN job;
    END IF;
    IF job.status = 'queued' THEN
        UPDATE commonplace.jobs SET covers_event = newest, number = DEFAULT, updated_at = now()
        WHERE team_id = p_session.team_id AND id = job.id RETURNING * INTO job;
        RETURN job;
    END IF;
    INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, session_id, source_type, source_id, job_type, revision,
        covers_event, run_after, key_id, actor, request_id)
    VALUES (p_job_id, p_session.team_id, p_session.project_id, p_session_key, p_session.id, 'session_summary', p_session.id,
        'observation_generate_session_summary', coalesce(job.revision, 0) + 1, newest, now(), p_key_id, p_actor, p_request_id)
    RETURNING * INTO job;
    PERFORM commonplace.add_waiting(p_session.team_id, p_session.project_id, p_session_key, p_session.id, 'per-event', 0, 1);
    RETURN job;
END
$$;

-- End a session: what of it waits is due now, and its summary is asked for, by p_actor. Again: the same job, unless events came.
-- Returns {"session", "job"}, or NULL where the team has no such session. CM100: the key is bound to another project.
CREATE FUNCTION commonplace.end_session_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_session_id text, p_job_id uuid)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended commonplace.sessions;
    job commonplace.jobs;
    group_key text;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT * INTO ended FROM commonplace.sessions WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_session_id);
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF ended.project_id <> p_key_project THEN
        RAISE EXCEPTION 'API key is scoped to a different project' USING ERRCODE = 'CM100';
    END IF;
    group_key := commonplace.session_key(NULL, ended.id, NULL, NULL, p_actor);
    -- Leased groups too are locked, though left as they are: whoever lets go of one after this finds the summary's job.
    WITH held AS (
        SELECT session_key FROM commonplace.job_groups WHERE team_id = p_team_id AND session_id = ended.id
        ORDER BY session_key FOR UPDATE)
    UPDATE commonplace.job_groups g SET available_at = now() FROM held
        WHERE g.team_id = p_team_id AND g.project_id = ended.project_id AND g.session_key = held.session_key
            AND g.available_at > now() AND (g.lease_until <= now() OR g.lease_until IS NULL);
    PERFORM commonplace.add_waiting(p_team_id, ended.project_id, group_key, ended.id, 'per-event', 0, 0);
    SELECT * INTO ended FROM commonplace.sessions WHERE team_id = p_team_id AND id = ended.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    job := commonplace.queue_summary(ended, group_key, p_job_id, p_key_id, p_actor, p_request_id);
    IF ended.ended_at IS NULL OR job.id = p_job_id THEN
        -- The time of now, not of this transaction's start: events that it waited for came before the end.
        UPDATE commonplace.sessions SET ended_at = clock_timestamp(), updated_at = now() WHERE team_id = p_team_id AND id = ended.id
            RETURNING * INTO ended;
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, ended.project_id, p_key_id, p_actor, p_request_id, 'session.end', 'server_session', ended.id::text,
        jsonb_build_object('requestId', p_request_id, 'generationJobId', job.id));
    RETURN jsonb_build_object('session', commonplace.session_json(ended), 'job', commonplace.job_json(job));
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.add_waiting(uuid, uuid, text, uuid, text, integer, integer),
    commonplace.let_go(uuid, uuid, text, jsonb),
    commonplace.queue_event(commonplace.events, uuid, uuid, text, text, integer, boolean, text),
    commonplace.ingest_v1(uuid, uuid, uuid, text, text, boolean, boolean, jsonb, boolean),
    commonplace.generation_status(commonplace.sessions),
    commonplace.session_json(commonplace.sessions),
    commonplace.merge_session(jsonb, jsonb),
    commonplace.start_session_v1(uuid, uuid, uuid, text, text, jsonb),
    commonplace.get_session_v1(uuid, text),
    commonplace.queue_summary(commonplace.sessions, text, uuid, uuid, text, text),
    commonplace.end_session_v1(uuid, uuid, uuid, text, text, text, uuid)
TO commonplace_runtime;
