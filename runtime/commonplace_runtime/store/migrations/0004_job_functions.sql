-- What the worker calls: claiming a session's jobs, and writing their results under the lease.
-- A session's jobs are claimed together, in order, by one worker at a time; the lease token fences what
-- a worker writes that was thought dead. Lock order everywhere: group, events, jobs, counters.

-- Whether p_lease_token is still the newest lease of the group; locks the group row.
-- Sets the team, so it comes first in every function below.
CREATE FUNCTION commonplace.hold_lease(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest bigint;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT lease_token INTO newest FROM commonplace.job_groups
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key FOR UPDATE;
    RETURN coalesce(newest = p_lease_token, false);
END
$$;

-- Give the group back. The caller holds its row lock, so every ingest into it has either committed, and the
-- fresh snapshot of this statement sees its job, or comes later and wakes the group itself.
-- The oldest open job decides: while it waits for its retry, younger ones of the session wait behind it.
CREATE FUNCTION commonplace.free_group(p_team_id uuid, p_project_id uuid, p_session_key text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE commonplace.job_groups SET lease_until = NULL, leased_by = NULL, available_at = (
        SELECT CASE status WHEN 'processing' THEN now() ELSE run_after END FROM commonplace.jobs
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
            AND status IN ('queued', 'processing') ORDER BY number LIMIT 1)
    WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
END
$$;

-- Jobs of the lease that nobody worked on go back to the queue, the attempt uncounted. Returns how many.
CREATE FUNCTION commonplace.hand_back(p_team_id uuid, p_project_id uuid, p_session_key text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    handed integer;
BEGIN
    UPDATE commonplace.jobs SET status = 'queued', attempts = greatest(attempts - 1, 0), locked_at = NULL, locked_by = NULL,
        updated_at = now()
    WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key AND status = 'processing';
    GET DIAGNOSTICS handed = ROW_COUNT;
    RETURN handed;
END
$$;

-- Adds what one model call made and cost to the month's sums. p_results as in complete_jobs_v1.
CREATE FUNCTION commonplace.count_generation(p_team_id uuid, p_project_id uuid, p_key_id uuid, p_results jsonb, p_memories bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tokens_in bigint := coalesce((p_results ->> 'inputTokens')::bigint, 0);
    tokens_out bigint := coalesce((p_results ->> 'outputTokens')::bigint, 0);
BEGIN
    -- In a fixed order: two sessions of one team finish at once without a deadlock.
    INSERT INTO commonplace.usage_counters AS known (team_id, project_id, key_id, month, kind, model, quantity)
    SELECT p_team_id, p_project_id, p_key_id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, counted.kind,
        coalesce(p_results ->> 'model', ''), counted.quantity
    FROM (VALUES ('input_tokens', tokens_in), ('observation', p_memories), ('output_tokens', tokens_out),
        ('tokens', tokens_in + tokens_out)) AS counted (kind, quantity)
    WHERE counted.quantity > 0 ORDER BY counted.kind
    ON CONFLICT (team_id, month, kind, project_id, key_id, model)
        DO UPDATE SET quantity = known.quantity + excluded.quantity, updated_at = now();
END
$$;

-- Jobs that a worker took for the last time and never finished. Returns how many; called under the group's lock.
CREATE FUNCTION commonplace.bury_spent_jobs(p_team_id uuid, p_project_id uuid, p_session_key text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    spent uuid[];
BEGIN
    WITH failed AS (
        UPDATE commonplace.jobs SET status = 'failed', failed_at = now(), locked_at = NULL, locked_by = NULL, updated_at = now(),
            last_error = jsonb_build_object('classification', 'lease_expired',
                'reason', format('the worker stopped answering in each of %s attempts', attempts))
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
            AND status = 'processing' AND attempts >= max_attempts
        RETURNING id, key_id, actor, request_id, attempts, last_error),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id, 'generation_job.failed', 'observation_generation_job', id::text,
            last_error || jsonb_build_object('attempts', attempts)
        FROM failed)
    SELECT coalesce(array_agg(id), '{}') INTO spent FROM failed;
    PERFORM pg_notify('commonplace_jobs', id::text) FROM unnest(spent) AS id;
    RETURN cardinality(spent);
END
$$;

-- The ids of the group's jobs to work on now, marked as taken: the due ones from the oldest on, at most p_max_jobs
-- and, past the first, at most 2 MB of stored payloads: a worker holds many claims at once.
-- A job on its last attempt is taken alone, so that one that kills workers or spoils answers cannot take others with it.
CREATE FUNCTION commonplace.take_due_jobs(p_team_id uuid, p_project_id uuid, p_session_key text, p_worker text, p_max_jobs integer)
RETURNS uuid[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken uuid[];
BEGIN
    WITH oldest AS (
        SELECT id, event_id, number, status = 'processing' OR run_after <= now() AS is_due,
            attempts + 1 >= max_attempts AS is_last_chance, row_number() OVER (ORDER BY number) AS place
        FROM commonplace.jobs
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
            AND status IN ('queued', 'processing')
        ORDER BY number LIMIT p_max_jobs),
    weighed AS (
        SELECT oldest.*, sum(coalesce(pg_column_size(e.payload), 0)) OVER (ORDER BY oldest.number) <= 2000000 AS is_light
        FROM oldest LEFT JOIN commonplace.events e ON e.team_id = p_team_id AND e.id = oldest.event_id),
    due AS (
        SELECT id, bool_and(is_due AND (place = 1 OR is_light AND NOT is_last_chance)) OVER so_far
            AND (place = 1 OR NOT first_value(is_last_chance) OVER so_far) AS is_taken
        FROM weighed WINDOW so_far AS (ORDER BY number)),
    marked AS (
        UPDATE commonplace.jobs j SET status = 'processing', attempts = j.attempts + 1, locked_at = now(), locked_by = p_worker,
            updated_at = now()
        FROM due WHERE due.is_taken AND j.id = due.id AND j.team_id = p_team_id AND j.status IN ('queued', 'processing')
        RETURNING j.id)
    SELECT array_agg(id) INTO taken FROM marked;
    RETURN taken;
END
$$;

-- Leases the group that has waited longest for p_lease_seconds and returns it with its due jobs in order:
-- {"team": {"id", "defaultVisibility", "generationMode"}, "limits": row of team_limits or null, "project": {"id", "name"},
--  "sessionKey", "leaseToken", "expired": jobs given up in passing, "jobs": [{"id", "attempt", "maxAttempts", "sourceType",
--  "jobType", "keyId", "sessionId", "createdAt", "event": null or {"id", "eventType", "sourceAdapter", "platformSource",
--  "occurredAt", "payload"}}]}. Without jobs: {"expired", "jobs": []}; NULL when nothing was due.
CREATE FUNCTION commonplace.claim_v1(p_worker text, p_lease_seconds integer, p_max_jobs integer)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_group commonplace.job_groups;
    team commonplace.teams;
    taken uuid[];
    expired integer := 0;
BEGIN
    -- Bounded: groups without due work are put right in passing, and one claim must stay short.
    FOR step IN 1..50 LOOP
        SELECT * INTO found_group FROM commonplace.job_groups WHERE available_at <= now()
            ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        SELECT * INTO team FROM commonplace.teams WHERE id = found_group.team_id;
        IF team.detached_at IS NOT NULL THEN
            -- Out of the way, and back soon after the team is adopted again.
            UPDATE commonplace.job_groups SET available_at = now() + interval '10 minutes', lease_until = NULL, leased_by = NULL
            WHERE team_id = found_group.team_id AND project_id = found_group.project_id AND session_key = found_group.session_key;
            CONTINUE;
        END IF;
        expired := expired + commonplace.bury_spent_jobs(found_group.team_id, found_group.project_id, found_group.session_key);
        taken := commonplace.take_due_jobs(found_group.team_id, found_group.project_id, found_group.session_key, p_worker, p_max_jobs);
        IF taken IS NULL THEN
            PERFORM commonplace.free_group(found_group.team_id, found_group.project_id, found_group.session_key);
            CONTINUE;
        END IF;
        UPDATE commonplace.job_groups SET lease_token = lease_token + 1, leased_by = p_worker,
            lease_until = now() + make_interval(secs => p_lease_seconds), available_at = now() + make_interval(secs => p_lease_seconds)
        WHERE team_id = found_group.team_id AND project_id = found_group.project_id AND session_key = found_group.session_key;
        RETURN jsonb_build_object(
            'team', jsonb_build_object('id', team.id, 'defaultVisibility', team.default_visibility, 'generationMode', team.generation_mode),
            'limits', (SELECT to_jsonb(l) - 'team_id' FROM commonplace.team_limits l WHERE l.team_id = team.id),
            'project', (SELECT jsonb_build_object('id', p.id, 'name', p.name) FROM commonplace.projects p
                        WHERE p.team_id = team.id AND p.id = found_group.project_id),
            'sessionKey', found_group.session_key, 'leaseToken', found_group.lease_token + 1, 'expired', expired,
            'jobs', (SELECT jsonb_agg(jsonb_build_object('id', j.id, 'attempt', j.attempts, 'maxAttempts', j.max_attempts,
                    'sourceType', j.source_type, 'jobType', j.job_type, 'keyId', j.key_id, 'sessionId', j.session_id,
                    'createdAt', j.created_at,
                    'event', CASE WHEN e.id IS NOT NULL THEN jsonb_build_object('id', e.id, 'eventType', e.event_type,
                        'sourceAdapter', e.source_adapter, 'platformSource', e.platform_source, 'occurredAt', e.occurred_at,
                        'payload', e.payload) END) ORDER BY j.number)
                FROM commonplace.jobs j LEFT JOIN commonplace.events e ON e.team_id = j.team_id AND e.id = j.event_id
                WHERE j.team_id = team.id AND j.id = ANY (taken)));
    END LOOP;
    RETURN CASE WHEN expired > 0 THEN jsonb_build_object('expired', expired, 'jobs', '[]'::jsonb) END;
END
$$;

-- Heartbeat. False: the lease was lost and whatever its holder makes will be refused.
CREATE FUNCTION commonplace.extend_lease_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint,
    p_lease_seconds integer)
RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    UPDATE commonplace.job_groups SET lease_until = now() + make_interval(secs => p_lease_seconds),
        available_at = now() + make_interval(secs => p_lease_seconds)
    WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
        AND lease_token = p_lease_token AND lease_until IS NOT NULL;
    RETURN FOUND;
END
$$;

-- Writes what a model call made of the lease's jobs, completes them and gives the group back.
-- p_results: {"provider", "model", "inputTokens", "outputTokens", "jobs": [{"id", "memories": [{"id", "index", "kind", "title",
--   "content", "metadata", "keywords", "tags", "sources": [{"eventId", "jobId"}]}]}]}.
-- A memory stays in the job's own team and project. A job that was cancelled or erased meanwhile persists nothing, nor
-- does a memory one of whose events was erased. Taken jobs that p_results leaves out are handed back.
-- Returns {"outcome": written|lease_lost, "jobs": completed, "memories": written, "handedBack"}. Running it again writes nothing.
CREATE FUNCTION commonplace.complete_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint,
    p_results jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    finished uuid[];
    payer uuid;
    written integer;
    handed integer;
    adopted_visibility text;
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN jsonb_build_object('outcome', 'lease_lost', 'jobs', 0, 'memories', 0, 'handedBack', 0);
    END IF;
    PERFORM FROM commonplace.events WHERE team_id = p_team_id AND project_id = p_project_id AND id IN (
            SELECT (source ->> 'eventId')::uuid FROM jsonb_array_elements(p_results -> 'jobs') AS result,
                jsonb_array_elements(result -> 'memories') AS memory, jsonb_array_elements(memory -> 'sources') AS source)
        ORDER BY id FOR KEY SHARE;
    SELECT coalesce(array_agg(id), '{}'), (array_agg(key_id ORDER BY number))[1] INTO finished, payer FROM (
        SELECT id, number, key_id FROM commonplace.jobs
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key AND status = 'processing'
            AND id IN (SELECT (result ->> 'id')::uuid FROM jsonb_array_elements(p_results -> 'jobs') AS result)
        ORDER BY number FOR UPDATE) AS ours;
    SELECT coalesce(default_visibility, 'team') INTO adopted_visibility FROM commonplace.teams WHERE id = p_team_id;
    WITH wanted AS (
        SELECT job.id AS job_id, job.number AS job_number, job.key_id, job.actor, job.request_id, job.session_id,
            job.source_type, job.source_id, memory, job.id::text || ':' || (memory ->> 'index') AS generation_key, event.source_adapter
        FROM jsonb_array_elements(p_results -> 'jobs') AS result
            JOIN commonplace.jobs job ON job.team_id = p_team_id AND job.id = (result ->> 'id')::uuid AND job.id = ANY (finished)
            LEFT JOIN commonplace.events event ON event.team_id = p_team_id AND event.id = job.event_id
            CROSS JOIN jsonb_array_elements(result -> 'memories') AS memory
        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(memory -> 'sources') AS source
            WHERE NOT EXISTS (SELECT FROM commonplace.events e WHERE e.team_id = p_team_id AND e.project_id = p_project_id
                AND e.id = (source ->> 'eventId')::uuid))),
    made AS (
        INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, kind, title, content,
            metadata, tags, keywords, generation_key, job_id, author_key_id, model)
        SELECT (memory ->> 'id')::uuid, p_team_id, p_project_id, session_id, actor, adopted_visibility, memory ->> 'kind',
            memory ->> 'title', memory ->> 'content', memory -> 'metadata',
            ARRAY(SELECT jsonb_array_elements_text(memory -> 'tags')), ARRAY(SELECT jsonb_array_elements_text(memory -> 'keywords')),
            generation_key, job_id, key_id, p_results ->> 'model'
        FROM wanted ORDER BY job_number, (memory ->> 'index')::integer
        ON CONFLICT (team_id, generation_key) DO NOTHING
        RETURNING id, job_id, generation_key),
    sourced AS (
        INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id, job_id, metadata)
        SELECT made.id, p_team_id, 'agent_event', (source ->> 'eventId')::uuid, (source ->> 'eventId')::uuid,
            CASE WHEN (source ->> 'jobId')::uuid = ANY (finished) THEN (source ->> 'jobId')::uuid END,
            jsonb_build_object('provider', p_results -> 'provider', 'parsedObservationIndex', wanted.memory -> 'index',
                'source_adapter', wanted.source_adapter, 'actor_id', wanted.actor, 'api_key_id', wanted.key_id)
        FROM made JOIN wanted USING (generation_key) CROSS JOIN jsonb_array_elements(wanted.memory -> 'sources') AS source
        ON CONFLICT (memory_id, source_type, source_id) DO NOTHING),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id, 'observation.created', 'observation', made.id::text,
            jsonb_build_object('generationJobId', made.job_id, 'sourceType', source_type, 'sourceId', source_id,
                'provider', p_results -> 'provider', 'model', p_results -> 'model', 'sourceAdapter', source_adapter,
                'parsedObservationIndex', memory -> 'index', 'kind', memory -> 'kind')
        FROM made JOIN wanted USING (generation_key)),
    closed AS (
        UPDATE commonplace.jobs SET status = 'completed', completed_at = now(), locked_at = NULL, locked_by = NULL, last_error = NULL,
            updated_at = now()
        WHERE team_id = p_team_id AND id = ANY (finished)
        RETURNING id, key_id, actor, request_id, event_id, source_type, attempts),
    closed_noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, closed.key_id, closed.actor, closed.request_id, 'generation_job.completed',
            'observation_generation_job', closed.id::text,
            jsonb_build_object('generationJobId', closed.id, 'provider', p_results -> 'provider', 'model', p_results -> 'model',
                'observationCount', (SELECT count(*) FROM made WHERE made.job_id = closed.id),
                'observationIds', (SELECT coalesce(jsonb_agg(made.id), '[]') FROM made WHERE made.job_id = closed.id),
                'sourceAdapter', event.source_adapter, 'sourceType', closed.source_type)
        FROM closed LEFT JOIN commonplace.events event ON event.team_id = p_team_id AND event.id = closed.event_id)
    SELECT count(*) INTO written FROM made;
    UPDATE commonplace.sessions SET last_generated_at = now(), updated_at = now()
        WHERE team_id = p_team_id AND id IN (SELECT session_id FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (finished));
    handed := commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.free_group(p_team_id, p_project_id, p_session_key);
    IF cardinality(finished) > 0 THEN
        PERFORM commonplace.count_generation(p_team_id, p_project_id, payer, p_results, written);
    END IF;
    PERFORM pg_notify('commonplace_jobs', id::text) FROM unnest(finished) AS id;
    RETURN jsonb_build_object('outcome', 'written', 'jobs', cardinality(finished), 'memories', written, 'handedBack', handed);
END
$$;

-- Ends an attempt without memories: each job is tried again later or is given up.
-- p_failures: {"provider", "model", "inputTokens", "outputTokens", "jobs": [{"id", "retryAfterSeconds" (null: give up),
--   "counted": whether the attempt counts, "error": {"reason", "classification", …}}]}. Taken jobs that it leaves out are
-- handed back. Returns {"outcome": written|lease_lost, "retried", "failed", "handedBack"}. Running it again writes nothing.
CREATE FUNCTION commonplace.fail_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint,
    p_failures jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed uuid[];
    retried integer;
    payer uuid;
    handed integer;
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN jsonb_build_object('outcome', 'lease_lost', 'retried', 0, 'failed', 0, 'handedBack', 0);
    END IF;
    WITH verdict AS (
        SELECT job.id, verdict -> 'error' AS error, coalesce((verdict ->> 'counted')::boolean, true) AS counted,
            make_interval(secs => (verdict ->> 'retryAfterSeconds')::double precision) AS pause,
            verdict ->> 'retryAfterSeconds' IS NOT NULL
                AND (job.attempts < job.max_attempts OR NOT coalesce((verdict ->> 'counted')::boolean, true)) AS again
        FROM jsonb_array_elements(p_failures -> 'jobs') AS verdict
            JOIN commonplace.jobs job ON job.team_id = p_team_id AND job.id = (verdict ->> 'id')::uuid),
    ended AS (
        UPDATE commonplace.jobs job SET
            status = CASE WHEN again THEN 'queued' ELSE 'failed' END,
            failed_at = CASE WHEN again THEN NULL ELSE now() END,
            attempts = CASE WHEN counted THEN job.attempts ELSE greatest(job.attempts - 1, 0) END,
            run_after = CASE WHEN again THEN now() + pause ELSE job.run_after END,
            last_error = error, locked_at = NULL, locked_by = NULL, updated_at = now()
        FROM verdict
        WHERE job.team_id = p_team_id AND job.project_id = p_project_id AND job.session_key = p_session_key
            AND job.id = verdict.id AND job.status = 'processing'
        RETURNING job.id, job.number, job.status, job.key_id, job.actor, job.request_id, job.attempts, job.last_error),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id, 'generation_job.failed', 'observation_generation_job', id::text,
            last_error || jsonb_build_object('attempts', attempts, 'provider', p_failures -> 'provider', 'model', p_failures -> 'model')
        FROM ended WHERE status = 'failed')
    SELECT coalesce(array_agg(id) FILTER (WHERE status = 'failed'), '{}'), count(*) FILTER (WHERE status = 'queued'),
        (array_agg(key_id ORDER BY number))[1]
    INTO failed, retried, payer FROM ended;
    handed := commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.free_group(p_team_id, p_project_id, p_session_key);
    IF retried + cardinality(failed) > 0 THEN
        PERFORM commonplace.count_generation(p_team_id, p_project_id, payer, p_failures, 0);
    END IF;
    PERFORM pg_notify('commonplace_jobs', id::text) FROM unnest(failed) AS id;
    RETURN jsonb_build_object('outcome', 'written', 'retried', retried, 'failed', cardinality(failed), 'handedBack', handed);
END
$$;

-- A worker that stops hands its lease back; the attempt does not count. False: the lease was lost already.
CREATE FUNCTION commonplace.release_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint)
RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN false;
    END IF;
    PERFORM commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.free_group(p_team_id, p_project_id, p_session_key);
    RETURN true;
END
$$;

-- The queue of this database: {"backlog": due jobs nobody works on, "oldestSeconds": how long the group that has waited
-- longest could have been claimed, "inFlight": jobs being worked on}. Counting stops at 100,000 each.
CREATE FUNCTION commonplace.queue_stats_v1() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'backlog', (SELECT count(*) FROM (SELECT FROM commonplace.jobs j JOIN commonplace.teams t ON t.id = j.team_id
            WHERE j.status = 'queued' AND j.run_after <= now() AND t.detached_at IS NULL LIMIT 100000) AS waiting),
        'inFlight', (SELECT count(*) FROM (SELECT FROM commonplace.jobs WHERE status = 'processing' LIMIT 100000) AS running),
        'oldestSeconds', coalesce(extract(epoch FROM now() - (
            SELECT g.available_at FROM commonplace.job_groups g JOIN commonplace.teams t ON t.id = g.team_id
            WHERE g.available_at <= now() AND t.detached_at IS NULL ORDER BY g.available_at LIMIT 1)), 0));
$$;

-- Removes what time has made useless, at most p_batch rows of a kind; every worker calls it about once a minute.
-- Returns {"rateCounters", "keysRevoked"}, or NULL while another worker is at it.
CREATE FUNCTION commonplace.housekeeping_v1(p_batch integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counters integer;
    keys integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('commonplace.housekeeping', 0)) THEN
        RETURN NULL;
    END IF;
    DELETE FROM commonplace.rate_counters WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.rate_counters WHERE window_start < now() - interval '10 minutes' LIMIT p_batch));
    GET DIAGNOSTICS counters = ROW_COUNT;
    WITH over AS (
        SELECT id FROM commonplace.api_keys WHERE state = 'grace' AND grace_until <= now() LIMIT p_batch FOR UPDATE SKIP LOCKED),
    revoked AS (
        UPDATE commonplace.api_keys k SET state = 'revoked', revoked_at = now(), updated_at = now()
        FROM over WHERE k.id = over.id RETURNING k.id, k.team_id, k.project_id, k.revision)
    INSERT INTO commonplace.audit_log (team_id, project_id, actor, action, resource_type, resource_id, details)
    SELECT team_id, project_id, 'system:housekeeping', 'api_key.revoke', 'api_key', id::text,
        jsonb_build_object('revision', revision, 'reason', 'the grace period is over')
    FROM revoked;
    GET DIAGNOSTICS keys = ROW_COUNT;
    RETURN jsonb_build_object('rateCounters', counters, 'keysRevoked', keys);
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.hold_lease(uuid, uuid, text, bigint),
    commonplace.free_group(uuid, uuid, text),
    commonplace.hand_back(uuid, uuid, text),
    commonplace.count_generation(uuid, uuid, uuid, jsonb, bigint),
    commonplace.claim_v1(text, integer, integer),
    commonplace.extend_lease_v1(uuid, uuid, text, bigint, integer),
    commonplace.complete_jobs_v1(uuid, uuid, text, bigint, jsonb),
    commonplace.fail_jobs_v1(uuid, uuid, text, bigint, jsonb),
    commonplace.release_jobs_v1(uuid, uuid, text, bigint),
    commonplace.queue_stats_v1(),
    commonplace.housekeeping_v1(integer)
TO commonplace_runtime;
