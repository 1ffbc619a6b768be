-- Jobs for people, what was used, and the figures of the queue for probes and autoscalers.
-- Lock order everywhere: group, events, jobs, counters.

-- Newest first by id: ids are version 7 of RFC 9562, so their order is that of time, and a page is a range of an index.
DROP INDEX commonplace.jobs_of_project;
CREATE INDEX jobs_of_project ON commonplace.jobs (team_id, project_id, id DESC);
CREATE INDEX jobs_cancelled ON commonplace.jobs (team_id, id DESC) WHERE status = 'cancelled';
CREATE INDEX jobs_failed_of_lane ON commonplace.jobs (source_type, failed_at DESC) WHERE status = 'failed';

-- The least id made at that moment.
CREATE FUNCTION commonplace.first_id_of(p_time timestamptz) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
RETURN (lpad(to_hex(greatest(0, floor(extract(epoch FROM p_time) * 1000))::bigint & 281474976710655), 12, '0') || repeat('0', 20))::uuid;

-- A time as people and JavaScript read it.
CREATE FUNCTION commonplace.iso_utc(p_time timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- Ids of a team's jobs, newest first, at most p_limit. p_wanted: {"status", "sourceType", "classification": of the last error,
-- "since": created at or after}, each may be absent or null. p_project_id NULL: every project.
CREATE FUNCTION commonplace.find_jobs(p_team_id uuid, p_project_id uuid, p_wanted jsonb, p_limit integer) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    wanted_status text := p_wanted ->> 'status';
    wanted_type text := p_wanted ->> 'sourceType';
    wanted_class text := p_wanted ->> 'classification';
    since timestamptz := (p_wanted ->> 'since')::timestamptz;
    -- Ids carry the clock of the machine that made them, which may be behind ours.
    first_id uuid := commonplace.first_id_of(since - interval '1 hour');
BEGIN
    RETURN QUERY SELECT id FROM commonplace.jobs
        WHERE team_id = p_team_id AND (p_project_id IS NULL OR project_id = p_project_id)
            AND (wanted_status IS NULL OR status = wanted_status) AND (wanted_type IS NULL OR source_type = wanted_type)
            AND (since IS NULL OR created_at >= since AND id >= first_id)
            AND (wanted_class IS NULL OR last_error ->> 'classification' = wanted_class)
        ORDER BY id DESC LIMIT p_limit;
END
$$;

-- What a job is about, in the peer's words, with what its retries left on the row.
CREATE FUNCTION commonplace.job_payload(j commonplace.jobs) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('kind', CASE j.source_type WHEN 'session_summary' THEN 'summary' ELSE 'event' END, 'team_id', j.team_id,
        'project_id', j.project_id, 'source_type', j.source_type, 'source_id', j.source_id, 'generation_job_id', j.id,
        'agent_event_id', j.event_id, 'server_session_id', j.session_id, 'api_key_id', j.key_id, 'actor_id', j.actor,
        'request_id', j.request_id,
        'source_adapter', (SELECT e.source_adapter FROM commonplace.events e WHERE e.team_id = j.team_id AND e.id = j.event_id))
    || j.payload;

-- A page of jobs, newest first, and its audit row. p_wanted as in find_jobs; p_project: id or name, NULL for all that the key reaches.
-- Returns {"jobs": [job_json, with "payload" if p_with_payload], "total"}, or NULL where the key reaches no such project.
-- total is exact up to 10,000; beyond that it says how far the counting or the paging went.
CREATE FUNCTION commonplace.list_jobs_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_mode text, p_project text, p_wanted jsonb, p_limit integer, p_offset integer, p_with_payload boolean)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid := p_key_project;
    ids uuid[];
    page jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_project IS NOT NULL THEN
        SELECT id INTO meant FROM commonplace.projects WHERE team_id = p_team_id
            AND (id = commonplace.uuid_or_null(p_project) OR name = p_project)
            ORDER BY id::text = p_project DESC LIMIT 1;
        IF NOT FOUND OR meant <> p_key_project THEN
            RETURN NULL;
        END IF;
    END IF;
    ids := ARRAY(SELECT commonplace.find_jobs(p_team_id, meant, p_wanted, greatest(10000, p_offset + p_limit)));
    SELECT coalesce(jsonb_agg(commonplace.job_json(j) || CASE WHEN p_with_payload
            THEN jsonb_build_object('payload', commonplace.job_payload(j)) ELSE '{}' END ORDER BY j.id DESC), '[]')
    INTO page FROM commonplace.jobs j WHERE j.team_id = p_team_id AND j.id = ANY (ids[p_offset + 1:p_offset + p_limit]);
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
        jsonb_build_object('mode', p_mode, 'limit', p_limit, 'offset', p_offset, 'resultCount', jsonb_array_length(page),
            'requestId', p_request_id) || jsonb_strip_nulls(p_wanted)
        || CASE WHEN p_mode = 'jobs_list' THEN jsonb_build_object('includePayload', p_with_payload) ELSE '{}' END);
    RETURN jsonb_build_object('jobs', page, 'total', cardinality(ids));
END
$$;

-- One job, in the shape of the wire, with "heldUntil" and "holdReason" while its team's budget holds it back; NULL for none.
CREATE FUNCTION commonplace.show_job_v1(p_team_id uuid, p_key_project uuid, p_job_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT commonplace.job_json(j) || jsonb_build_object('retriedCount', j.retried)
            || CASE WHEN h.team_id IS NULL THEN '{}' ELSE jsonb_build_object('heldUntil', commonplace.iso_utc(h.held_until), 'holdReason', h.reason) END
        FROM commonplace.jobs j LEFT JOIN commonplace.team_holds h
            ON h.team_id = j.team_id AND h.held_until > now() AND j.status = 'queued'
        WHERE j.team_id = p_team_id AND j.id = commonplace.uuid_or_null(p_job_id)
            AND (p_key_project IS NULL OR j.project_id = p_key_project));
END
$$;

-- The job, it and its group locked, the group first; all NULL where the key reaches no such job.
CREATE FUNCTION commonplace.hold_job(p_team_id uuid, p_key_project uuid, p_job_id text) RETURNS commonplace.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_job_id)
        AND (p_key_project IS NULL OR project_id = p_key_project);
    PERFORM FROM commonplace.job_groups WHERE team_id = p_team_id AND project_id = job.project_id AND session_key = job.session_key
        FOR UPDATE;
    SELECT * INTO job FROM commonplace.jobs WHERE team_id = p_team_id AND id = job.id FOR UPDATE;
    RETURN job;
END
$$;

-- Lets a group be claimed now, and with it every job up to number p_number: the older ones stand before it.
-- A leased group is put right by its worker, one whose lease ran out by the next claim. The caller holds its lock.
CREATE FUNCTION commonplace.wake_group(p_team_id uuid, p_project_id uuid, p_session_key text, p_number bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE commonplace.jobs SET run_after = now(), updated_at = now() WHERE team_id = p_team_id AND project_id = p_project_id
        AND session_key = p_session_key AND status = 'queued' AND number <= p_number AND run_after > now();
    IF EXISTS (SELECT FROM commonplace.job_groups WHERE team_id = p_team_id AND project_id = p_project_id
            AND session_key = p_session_key AND lease_until IS NULL) THEN
        PERFORM commonplace.free_group(p_team_id, p_project_id, p_session_key);
        UPDATE commonplace.job_groups SET available_at = now() WHERE team_id = p_team_id AND project_id = p_project_id
            AND session_key = p_session_key AND available_at > now();
    END IF;
END
$$;

-- Puts those of the jobs back into the queue that are in one of p_from, each with one attempt at least; audited one by one.
-- Their place in the session's order stays. The caller holds the groups' locks, and wakes them.
CREATE FUNCTION commonplace.requeue_jobs(p_team_id uuid, p_key_id uuid, p_actor text, p_request_id text, p_job_ids uuid[], p_from text[])
RETURNS SETOF commonplace.jobs LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH ended AS (
        SELECT id, status FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (p_job_ids) AND status = ANY (p_from)
        ORDER BY number FOR UPDATE),
    again AS (
        UPDATE commonplace.jobs j SET status = 'queued', attempts = least(j.attempts, j.max_attempts - 1), run_after = now(),
            failed_at = NULL, cancelled_at = NULL, locked_at = NULL, locked_by = NULL, last_error = NULL, updated_at = now(),
            retried = j.retried + 1, payload = j.payload || jsonb_build_object('retried_count', j.retried + 1,
                'last_retried_by_actor', p_actor, 'last_retried_request_id', p_request_id)
        FROM ended WHERE j.team_id = p_team_id AND j.id = ended.id RETURNING j.*),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, project_id, p_key_id, p_actor, p_request_id, 'generation_job.retried_by_operator',
            'observation_generation_job', again.id::text, jsonb_build_object('previousStatus', ended.status,
                'currentStatus', again.status, 'retriedCount', again.retried, 'requestId', p_request_id)
        FROM again JOIN ended USING (id))
    SELECT * FROM again;
$$;

-- A person wants a job again. Returns {"outcome": retried|already_queued|processing|completed, "job", "retriedCount"}, or NULL
-- for no such job. One that is queued is let go at once; one whose worker's lease ran out is queued again.
CREATE FUNCTION commonplace.retry_job_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_job_id text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs := commonplace.hold_job(p_team_id, p_key_project, p_job_id);
    outcome text := 'retried';
BEGIN
    IF job.id IS NULL THEN
        RETURN NULL;
    ELSIF job.status = 'completed' OR job.status = 'processing' AND EXISTS (SELECT FROM commonplace.job_groups
            WHERE team_id = p_team_id AND project_id = job.project_id AND session_key = job.session_key AND lease_until > now()) THEN
        outcome := job.status;
    ELSIF job.status = 'queued' THEN
        outcome := 'already_queued';
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        VALUES (p_team_id, job.project_id, p_key_id, p_actor, p_request_id, 'generation_job.retried_by_operator',
            'observation_generation_job', job.id::text, jsonb_build_object('outcome', 'noop_already_queued',
                'currentAttempts', job.attempts, 'requestId', p_request_id));
    ELSE
        job := commonplace.requeue_jobs(p_team_id, p_key_id, p_actor, p_request_id, ARRAY[job.id],
            ARRAY['failed', 'cancelled', 'processing']);
    END IF;
    IF job.status = 'queued' THEN
        PERFORM commonplace.wake_group(p_team_id, job.project_id, job.session_key, job.number);
    END IF;
    RETURN jsonb_build_object('outcome', outcome, 'job', commonplace.job_json(job), 'retriedCount', job.retried);
END
$$;

-- A person wants up to p_limit jobs again, of the newest 10,000 that match the oldest; p_wanted as in find_jobs, its status
-- failed or cancelled, and "project": id or name. Returns {"retried", "remaining"}, the latter exact up to 10,000, or NULL
-- where the key reaches no such project. One audit row for the call, one for each job.
CREATE FUNCTION commonplace.retry_jobs_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_wanted jsonb, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid := p_key_project;
    found_ids uuid[];
    chosen uuid[];
    woken record;
    retried integer := 0;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_wanted ->> 'project' IS NOT NULL THEN
        SELECT id INTO meant FROM commonplace.projects WHERE team_id = p_team_id
            AND (id = commonplace.uuid_or_null(p_wanted ->> 'project') OR name = p_wanted ->> 'project')
            ORDER BY id::text = p_wanted ->> 'project' DESC LIMIT 1;
        IF NOT FOUND OR meant <> p_key_project THEN
            RETURN NULL;
        END IF;
    END IF;
    found_ids := ARRAY(SELECT commonplace.find_jobs(p_team_id, meant, p_wanted, 10000 + p_limit));
    chosen := found_ids[greatest(1, cardinality(found_ids) - p_limit + 1):];
    -- In the order in which a batch of events locks them; where that differs after all, the statement is run again.
    PERFORM FROM commonplace.job_groups g WHERE g.team_id = p_team_id AND (g.project_id, g.session_key) IN (
            SELECT j.project_id, j.session_key FROM commonplace.jobs j WHERE j.team_id = p_team_id AND j.id = ANY (chosen))
        ORDER BY g.project_id, g.session_id, g.session_key FOR UPDATE;
    FOR woken IN
        SELECT project_id, session_key, max(number) AS newest, count(*) AS jobs
        FROM commonplace.requeue_jobs(p_team_id, p_key_id, p_actor, p_request_id, chosen, ARRAY[p_wanted ->> 'status'])
        GROUP BY project_id, session_key
    LOOP
        PERFORM commonplace.wake_group(p_team_id, woken.project_id, woken.session_key, woken.newest);
        retried := retried + woken.jobs;
    END LOOP;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'generation_jobs.retried_by_operator', 'observation_generation_job',
        jsonb_strip_nulls(p_wanted) || jsonb_build_object('limit', p_limit, 'retriedCount', retried, 'requestId', p_request_id));
    RETURN jsonb_build_object('retried', retried, 'remaining', least(cardinality(found_ids) - retried, 10000));
END
$$;

-- A person wants a job no more. Returns {"outcome": cancelled|already_cancelled|completed, "job"}, or NULL for no such job.
-- A call that is under way goes on; what it makes of the job is discarded, what it uses is counted.
CREATE FUNCTION commonplace.cancel_job_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_job_id text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job commonplace.jobs := commonplace.hold_job(p_team_id, p_key_project, p_job_id);
    previous text := job.status;
BEGIN
    IF job.id IS NULL THEN
        RETURN NULL;
    ELSIF job.status = 'completed' THEN
        RETURN jsonb_build_object('outcome', 'completed', 'job', commonplace.job_json(job));
    END IF;
    IF previous <> 'cancelled' THEN
        UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now(), failed_at = NULL, locked_at = NULL, locked_by = NULL,
            updated_at = now() WHERE team_id = p_team_id AND id = job.id RETURNING * INTO job;
        IF EXISTS (SELECT FROM commonplace.job_groups WHERE team_id = p_team_id AND project_id = job.project_id
                AND session_key = job.session_key AND lease_until IS NULL) THEN
            PERFORM commonplace.free_group(p_team_id, job.project_id, job.session_key);
        END IF;
        PERFORM pg_notify('commonplace_jobs', job.id::text);
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, job.project_id, p_key_id, p_actor, p_request_id, 'generation_job.cancelled_by_operator',
        'observation_generation_job', job.id::text, jsonb_build_object('requestId', p_request_id)
        || CASE previous WHEN 'cancelled' THEN jsonb_build_object('outcome', 'noop_already_cancelled')
            ELSE jsonb_build_object('previousStatus', previous, 'currentStatus', job.status) END);
    RETURN jsonb_build_object('outcome', CASE previous WHEN 'cancelled' THEN 'already_cancelled' ELSE 'cancelled' END,
        'job', commonplace.job_json(job));
END
$$;

-- What a team used since the first of the UTC month: {"since", "usage": {kind: sum}, "limits": {column of team_limits: figure},
-- "hold": {"reason", "until"} or null, "projects", "keys", "models": the 100 dearest of each, as [{"id", "name", "modelCalls", "inputTokens",
-- "outputTokens", "tokens", "costMicrousd"}]}. With p_key_project these three tell of that project alone; the sums of all.
CREATE FUNCTION commonplace.usage_v1(p_team_id uuid, p_key_project uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    parts jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    WITH part AS (
        SELECT CASE WHEN grouping(project_id) = 0 THEN 'projects' WHEN grouping(key_id) = 0 THEN 'keys' ELSE 'models' END AS part,
            coalesce(project_id::text, key_id::text, model) AS id, project_id, key_id,
            sum(quantity) FILTER (WHERE kind = 'model_calls') AS calls, sum(quantity) FILTER (WHERE kind = 'input_tokens') AS input_tokens,
            sum(quantity) FILTER (WHERE kind = 'output_tokens') AS output_tokens, sum(quantity) FILTER (WHERE kind = 'tokens') AS tokens,
            sum(quantity) FILTER (WHERE kind = 'cost_microusd') AS cost
        FROM commonplace.usage_counters
        WHERE team_id = p_team_id AND month = this_month AND (p_key_project IS NULL OR project_id = p_key_project)
            AND kind IN ('model_calls', 'input_tokens', 'output_tokens', 'tokens', 'cost_microusd')
        GROUP BY GROUPING SETS ((project_id), (key_id), (model))),
    ranked AS (
        SELECT part.*, row_number() OVER (PARTITION BY part ORDER BY cost DESC NULLS LAST, tokens DESC NULLS LAST, id) AS place FROM part)
    SELECT jsonb_object_agg(part, listed) INTO parts FROM (
        SELECT r.part, jsonb_agg(jsonb_build_object('id', r.id, 'name', coalesce(p.name, k.name), 'modelCalls', coalesce(r.calls, 0),
            'inputTokens', coalesce(r.input_tokens, 0), 'outputTokens', coalesce(r.output_tokens, 0),
            'tokens', coalesce(r.tokens, 0), 'costMicrousd', coalesce(r.cost, 0)) ORDER BY r.place) AS listed
        FROM ranked r LEFT JOIN commonplace.projects p ON p.team_id = p_team_id AND p.id = r.project_id
            LEFT JOIN commonplace.api_keys k ON k.team_id = p_team_id AND k.id = r.key_id
        WHERE r.place <= 100 GROUP BY r.part) AS parted;
    RETURN jsonb_build_object('projects', '[]'::jsonb, 'keys', '[]'::jsonb, 'models', '[]'::jsonb) || coalesce(parts, '{}')
        || jsonb_build_object('since', this_month,
        'usage', (SELECT coalesce(jsonb_object_agg(kind, quantity), '{}') FROM (SELECT kind, sum(quantity)::bigint AS quantity
            FROM commonplace.usage_counters WHERE team_id = p_team_id AND month = this_month GROUP BY kind) AS used),
        'limits', (SELECT coalesce(jsonb_strip_nulls(to_jsonb(l) - 'team_id' - 'metered' - 'updated_at'), '{}')
            FROM (SELECT 1) AS always LEFT JOIN commonplace.team_limits l ON l.team_id = p_team_id),
        'hold', (SELECT jsonb_build_object('reason', h.reason, 'until', commonplace.iso_utc(h.held_until)) FROM commonplace.team_holds h
            WHERE h.team_id = p_team_id AND h.held_until > now()));
END
$$;

-- The two functions below must not choose their plans by what a table held when they were first called: hence the SETs.

-- See queue_lanes_v1.
CREATE FUNCTION commonplace.lane_figures() RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT jsonb_agg(jsonb_build_object('kind', kind,
        'waiting', (SELECT count(*) FROM (SELECT FROM commonplace.jobs j WHERE j.status = 'queued' AND j.source_type = lane.source_type
            AND j.run_after <= now() LIMIT 100000) AS counted),
        'delayed', (SELECT count(*) FROM (SELECT FROM commonplace.jobs j WHERE j.status = 'queued' AND j.source_type = lane.source_type
            AND j.run_after > now() LIMIT 100000) AS counted),
        'active', taken.active, 'stalled', taken.stalled,
        'completed', (SELECT count(*) FROM (SELECT FROM commonplace.jobs j WHERE j.status = 'completed' AND j.source_type = lane.source_type
            AND j.completed_at > now() - interval '7 days' LIMIT 1000) AS counted),
        'failed', (SELECT count(*) FROM (SELECT FROM commonplace.jobs j WHERE j.status = 'failed' AND j.source_type = lane.source_type
            AND j.failed_at > now() - interval '30 days' LIMIT 1000) AS counted)) ORDER BY kind)
    FROM (VALUES ('event', 'agent_event'), ('summary', 'session_summary')) AS lane (kind, source_type)
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE g.lease_until > now()) AS active,
            count(*) FILTER (WHERE (g.lease_until > now()) IS NOT TRUE) AS stalled
        FROM (SELECT j.team_id, j.project_id, j.session_key FROM commonplace.jobs j
            WHERE j.status = 'processing' AND j.source_type = lane.source_type LIMIT 100000) AS running
        JOIN commonplace.job_groups g USING (team_id, project_id, session_key)) AS taken
$$;

-- The jobs of all teams by kind, as the peer's two queues would show them: [{"kind": event|summary, "waiting": queued and due,
-- "delayed": queued for later by a policy or after a failure (by a policy as it was when they came: an end that lets them go
-- sooner leaves them here), "active": under a lease, "stalled": under a lease that ran out,
-- "completed": of the last 7 days, "failed": of the last 30}]. Counting stops at 100,000 each, at 1,000 of the last two.
CREATE FUNCTION commonplace.queue_lanes_v1() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT commonplace.lane_figures()';

-- Teams that no worker serves now: held or detached.
CREATE FUNCTION commonplace.resting_teams() RETURNS SETOF uuid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT team_id FROM commonplace.team_holds WHERE held_until > now()
    UNION ALL SELECT id FROM commonplace.teams WHERE detached_at IS NOT NULL
$$;

-- See queue_stats_v1. The backlog is read from an index alone, as far as vacuum has seen the table; a held team's groups are
-- stepped over there.
CREATE FUNCTION commonplace.queue_figures() RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT jsonb_build_object(
        'backlog', due.backlog, 'oldestSeconds', coalesce(extract(epoch FROM now() - due.oldest), 0),
        'inFlight', running.jobs, 'workers', running.workers,
        'serviceSeconds', (SELECT avg(service_seconds) FROM (
            SELECT service_seconds FROM (
                (SELECT completed_at, service_seconds FROM commonplace.jobs WHERE status = 'completed'
                    AND source_type = 'agent_event' AND completed_at > now() - interval '1 hour' ORDER BY completed_at DESC LIMIT 200)
                UNION ALL
                (SELECT completed_at, service_seconds FROM commonplace.jobs WHERE status = 'completed'
                    AND source_type = 'session_summary' AND completed_at > now() - interval '1 hour' ORDER BY completed_at DESC LIMIT 200)
            ) AS newest ORDER BY completed_at DESC LIMIT 200) AS measured),
        'arrivalRate', (SELECT count(*) / 60.0 FROM (SELECT FROM commonplace.jobs
            WHERE id >= commonplace.first_id_of(now() - interval '60 s') AND team_id NOT IN (SELECT commonplace.resting_teams())
            LIMIT 100000) AS arrived))
    -- A group that is due has a job at least, whatever its count says.
    FROM (SELECT coalesce(sum(greatest(waiting, 1)), 0) AS backlog, min(available_at) AS oldest FROM (
            SELECT waiting, available_at FROM commonplace.job_groups
            WHERE available_at <= now() AND team_id NOT IN (SELECT commonplace.resting_teams())
            ORDER BY available_at LIMIT 100000) AS claimable) AS due,
        (SELECT count(*) AS jobs, count(DISTINCT j.locked_by) AS workers
            FROM (SELECT team_id, project_id, session_key, locked_by FROM commonplace.jobs WHERE status = 'processing' LIMIT 100000) AS j
                JOIN commonplace.job_groups g USING (team_id, project_id, session_key)
            WHERE g.lease_until > now()) AS running
$$;

-- The queue of this database, over all teams: {"backlog": jobs of the sessions that may be claimed now, "oldestSeconds": how long
-- the one that has waited longest might have been, "inFlight": jobs under a lease, "workers": processes that hold one,
-- "serviceSeconds": a worker's time for one job, tries that failed included, mean of the newest 200 that were completed in the last
-- hour, or null: it does not know of jobs that were given up, "arrivalRate": jobs a second
-- over the last minute, by the clocks of those who made the ids}. Teams that are held or detached do not count. Counting stops at 100,000 sessions, jobs or arrivals.
CREATE OR REPLACE FUNCTION commonplace.queue_stats_v1() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT commonplace.queue_figures()';

-- As in 0004, and forgets what a session's next call would be told where there was none for a month.
-- Returns {"rateCounters", "keysRevoked", "groupStates"}, or NULL while another worker is at it.
CREATE OR REPLACE FUNCTION commonplace.housekeeping_v1(p_batch integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counters integer;
    keys integer;
    states integer;
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
    UPDATE commonplace.job_groups SET state = '{}', state_at = NULL WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.job_groups WHERE state_at < now() - interval '30 days' AND available_at IS NULL
        ORDER BY state_at LIMIT p_batch FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS states = ROW_COUNT;
    RETURN jsonb_build_object('rateCounters', counters, 'keysRevoked', keys, 'groupStates', states);
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.first_id_of(timestamptz),
    commonplace.iso_utc(timestamptz),
    commonplace.find_jobs(uuid, uuid, jsonb, integer),
    commonplace.job_payload(commonplace.jobs),
    commonplace.list_jobs_v1(uuid, uuid, uuid, text, text, text, text, jsonb, integer, integer, boolean),
    commonplace.show_job_v1(uuid, uuid, text),
    commonplace.hold_job(uuid, uuid, text),
    commonplace.wake_group(uuid, uuid, text, bigint),
    commonplace.requeue_jobs(uuid, uuid, text, text, uuid[], text[]),
    commonplace.retry_job_v1(uuid, uuid, uuid, text, text, text),
    commonplace.retry_jobs_v1(uuid, uuid, uuid, text, text, jsonb, integer),
    commonplace.cancel_job_v1(uuid, uuid, uuid, text, text, text),
    commonplace.usage_v1(uuid, uuid),
    commonplace.queue_lanes_v1()
TO commonplace_runtime;
