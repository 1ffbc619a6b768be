-- The queue: whose turn it is, what a call may cost, what came of it. Functions of 0004 by the same name end here.
-- Lock order everywhere: group, events, jobs, counters.
-- All of them touch a few rows by key. Their plans must not depend on what the tables held when a connection made them, for
-- a queue is empty one minute and has a million rows the next: so the planner may not read whole tables (SET enable_…), and
-- plans once for a connection.

-- The call is over and its true figures are counted elsewhere; or nobody knows what it used, and the estimate counts.
-- Under the budget's lock, so that nobody is refused for a call that has just ended.
CREATE FUNCTION commonplace.end_reservation(p_team_id uuid, p_project_id uuid, p_session_key text, p_is_settled boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended commonplace.reservations;
BEGIN
    IF NOT EXISTS (SELECT FROM commonplace.reservations WHERE team_id = p_team_id AND project_id = p_project_id
            AND session_key = p_session_key) THEN
        RETURN;
    END IF;
    PERFORM commonplace.lock_budget(p_team_id);
    DELETE FROM commonplace.reservations WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
        RETURNING * INTO ended;
    DELETE FROM commonplace.team_holds WHERE team_id = p_team_id AND reason = 'reserved';
    IF ended.team_id IS NOT NULL AND NOT p_is_settled THEN
        PERFORM commonplace.count_spent(p_team_id, p_project_id, ended.key_id, jsonb_build_array(jsonb_build_object('model', ended.model,
            'inputTokens', ended.input_tokens, 'outputTokens', ended.output_tokens, 'costMicrousd', ended.cost_microusd)), '', 0);
    END IF;
END
$$;

-- Sets what a call may cost aside, where the team has a budget. p_call: {"provider", "model", "inputTokens", "outputTokens",
-- "costMicrousd", "keyId", "place": of the call in its turn, from 1, "spent": what the calls before it used, "leaseSeconds": for
-- which the lease is kept where granted}. Returns {"outcome": granted|held|lease_lost, "reason", "heldUntil"}. Held: the jobs are
-- back in the queue, the attempt uncounted, and nothing of the team is claimed until then.
CREATE FUNCTION commonplace.reserve_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint, p_call jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    spent_tokens bigint;
    spent_cost bigint;
    verdict record;
    lease_end timestamptz;
BEGIN
    -- Asked again, because a refusal's answer was lost, the lease is the newest and is nobody's. One that ran out is lost as
    -- well: what it had set aside may have been counted by now.
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) OR NOT EXISTS (
            SELECT FROM commonplace.job_groups WHERE team_id = p_team_id AND project_id = p_project_id
                AND session_key = p_session_key AND lease_until > clock_timestamp()) THEN
        RETURN jsonb_build_object('outcome', 'lease_lost');
    END IF;
    PERFORM commonplace.lock_budget(p_team_id);
    -- Of workers that died: set aside any longer it would hold the team until somebody takes over that very session.
    PERFORM commonplace.end_reservation(p_team_id, r.project_id, r.session_key, false)
        FROM commonplace.reservations r JOIN commonplace.job_groups g USING (team_id, project_id, session_key)
        WHERE r.team_id = p_team_id AND (g.lease_until > now()) IS NOT TRUE AND (r.project_id, r.session_key) <> (p_project_id, p_session_key);
    -- Asked again, because a permit's answer was lost: what was spent is counted.
    IF NOT EXISTS (SELECT FROM commonplace.reservations WHERE team_id = p_team_id AND project_id = p_project_id
            AND session_key = p_session_key AND place >= (p_call ->> 'place')::integer) THEN
        PERFORM commonplace.count_spent(p_team_id, p_project_id, (p_call ->> 'keyId')::uuid, coalesce(p_call -> 'spent', '[]'), '', 0);
    END IF;
    SELECT coalesce(sum(quantity) FILTER (WHERE kind = 'tokens'), 0), coalesce(sum(quantity) FILTER (WHERE kind = 'cost_microusd'), 0)
        INTO spent_tokens, spent_cost FROM commonplace.usage_counters
        WHERE team_id = p_team_id AND month = this_month AND kind IN ('tokens', 'cost_microusd');
    SELECT v.* INTO verdict FROM (
        SELECT coalesce(sum(input_tokens + output_tokens), 0)::bigint AS tokens, coalesce(sum(cost_microusd), 0)::bigint AS cost
        FROM commonplace.reservations WHERE team_id = p_team_id AND (project_id, session_key) <> (p_project_id, p_session_key)) AS aside
        LEFT JOIN commonplace.team_limits l ON l.team_id = p_team_id
        CROSS JOIN LATERAL commonplace.budget_verdict(l, spent_tokens, spent_cost, aside.tokens, aside.cost, now()) AS v;
    IF verdict.refusal IS NULL THEN
        INSERT INTO commonplace.reservations (team_id, project_id, session_key, key_id, provider, model, input_tokens, output_tokens,
            cost_microusd, place)
        VALUES (p_team_id, p_project_id, p_session_key, (p_call ->> 'keyId')::uuid, p_call ->> 'provider', p_call ->> 'model',
            (p_call ->> 'inputTokens')::bigint, (p_call ->> 'outputTokens')::bigint, (p_call ->> 'costMicrousd')::bigint,
            coalesce((p_call ->> 'place')::integer, 1))
        ON CONFLICT (team_id, project_id, session_key) DO UPDATE SET key_id = excluded.key_id, provider = excluded.provider,
            model = excluded.model, input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
            cost_microusd = excluded.cost_microusd, place = excluded.place, created_at = now();
        -- The call begins with a whole lease, however long the budget's lock was waited for.
        lease_end := clock_timestamp() + make_interval(secs => (p_call ->> 'leaseSeconds')::integer);
        UPDATE commonplace.job_groups SET lease_until = lease_end, available_at = lease_end
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key AND p_call ? 'leaseSeconds';
        RETURN jsonb_build_object('outcome', 'granted');
    END IF;
    INSERT INTO commonplace.team_holds AS h (team_id, held_until, reason) VALUES (p_team_id, verdict.until, verdict.refusal)
        ON CONFLICT (team_id) DO UPDATE SET held_until = excluded.held_until, reason = excluded.reason, created_at = now()
            WHERE (h.held_until, h.reason) IS DISTINCT FROM (excluded.held_until, excluded.reason);
    IF FOUND AND verdict.refusal <> 'reserved' THEN
        INSERT INTO commonplace.audit_log (team_id, actor, action, resource_type, resource_id, details)
        VALUES (p_team_id, 'system:budget', 'generation.held', 'team', p_team_id::text, jsonb_build_object('reason', verdict.refusal,
            'heldUntil', verdict.until, 'tokens', spent_tokens, 'costMicrousd', spent_cost));
    END IF;
    DELETE FROM commonplace.reservations WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
    PERFORM commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.let_go(p_team_id, p_project_id, p_session_key, NULL);
    RETURN jsonb_build_object('outcome', 'held', 'reason', verdict.refusal, 'heldUntil', verdict.until);
END
$$;

-- As in 0004, but a job that was never tried is due whenever its group is, payloads are weighed as the text that is handed
-- out (past the first job, 4 MB of it), and each taken job is audited. Where nobody measured, it is guessed from what is stored.
CREATE OR REPLACE FUNCTION commonplace.take_due_jobs(p_team_id uuid, p_project_id uuid, p_session_key text, p_worker text, p_max_jobs integer)
RETURNS uuid[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    taken uuid[];
BEGIN
    WITH oldest AS (
        SELECT id, event_id, event_bytes, number, status = 'processing' OR run_after <= now() OR (attempts = 0 AND last_error IS NULL) AS is_due,
            attempts + 1 >= max_attempts AS is_last_chance, row_number() OVER (ORDER BY number) AS place
        FROM commonplace.jobs
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key
            AND status IN ('queued', 'processing')
        ORDER BY number LIMIT p_max_jobs),
    weighed AS (
        SELECT oldest.*, sum(coalesce(oldest.event_bytes, 20 * pg_column_size(e.payload), 0)) OVER (ORDER BY oldest.number)
            <= 4000000 AS is_light
        FROM oldest LEFT JOIN commonplace.events e ON oldest.event_bytes IS NULL AND e.team_id = p_team_id AND e.id = oldest.event_id),
    due AS (
        SELECT id, bool_and(is_due AND (place = 1 OR is_light AND NOT is_last_chance)) OVER so_far
            AND (place = 1 OR NOT first_value(is_last_chance) OVER so_far) AS is_taken
        FROM weighed WINDOW so_far AS (ORDER BY number)),
    marked AS (
        UPDATE commonplace.jobs j SET status = 'processing', attempts = j.attempts + 1, locked_at = now(), locked_by = p_worker,
            updated_at = now()
        FROM due WHERE due.is_taken AND j.id = due.id AND j.team_id = p_team_id AND j.status IN ('queued', 'processing')
        RETURNING j.id, j.key_id, j.actor, j.request_id, j.source_type, j.source_id, j.attempts),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id, 'generation_job.processing', 'observation_generation_job', id::text,
            jsonb_build_object('sourceType', source_type, 'sourceId', source_id, 'attempt', attempts, 'workerId', p_worker)
        FROM marked)
    SELECT array_agg(id) INTO taken FROM marked;
    RETURN taken;
END
$$;

-- The group to claim next, locked: of the first team after p_after that has due work and is neither held nor detached, the one
-- that waited longest. p_with_summaries false: none with a summary to write. From team to team it looks at one row of the
-- index, however many groups wait for later; compared as rows, both columns bound the search, and no other index gives that
-- order.
CREATE FUNCTION commonplace.next_group(p_after uuid, p_with_summaries boolean) RETURNS SETOF commonplace.job_groups
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_sort = off SET enable_incremental_sort = off AS $$
DECLARE
    reached uuid := p_after;
    earliest timestamptz;
BEGIN
    LOOP
        SELECT team_id, available_at INTO reached, earliest FROM commonplace.job_groups
            WHERE team_id > reached AND available_at IS NOT NULL ORDER BY team_id, available_at LIMIT 1;
        EXIT WHEN NOT FOUND;
        CONTINUE WHEN earliest > now() OR EXISTS (SELECT FROM commonplace.team_holds h WHERE h.team_id = reached AND h.held_until > now())
            OR EXISTS (SELECT FROM commonplace.teams t WHERE t.id = reached AND t.detached_at IS NOT NULL);
        RETURN QUERY SELECT * FROM commonplace.job_groups g
            WHERE (team_id, available_at) >= (reached, earliest) AND (team_id, available_at) <= (reached, now())
                AND available_at IS NOT NULL AND (p_with_summaries OR NOT EXISTS (
                    SELECT FROM commonplace.jobs j WHERE j.team_id = g.team_id AND j.project_id = g.project_id
                        AND j.session_key = g.session_key AND j.status IN ('queued', 'processing') AND j.source_type = 'session_summary'))
            ORDER BY team_id, available_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
    END LOOP;
END
$$;

-- A payload as the worker is handed it: one above 8 MB of JSON is told of and left out, for a value of Postgres has its bounds,
-- and a claim that fails would fail for ever. p_bytes NULL: nobody measured; what is stored in little is no such one.
CREATE FUNCTION commonplace.handed_payload(p_payload jsonb, p_bytes integer) RETURNS jsonb LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes integer := coalesce(p_bytes, CASE WHEN pg_column_size(p_payload) > 30000 THEN octet_length(p_payload::text) ELSE 0 END);
BEGIN
    RETURN CASE WHEN bytes > 8000000 THEN jsonb_build_object('note', format('left out: too large, %s bytes of JSON', bytes)) ELSE p_payload END;
END
$$;

-- What the worker is told of a leased group: {"team": {"id", "defaultVisibility", "generationMode"}, "limits": row of
-- team_limits or null, "project": {"id", "name"}, "sessionKey", "leaseToken", "request": the session's newest prompt, if the jobs' actor wrote it,
-- "state": the group's, "recent": [{"id", "title"}] of the state's memories that still stand, oldest first,
-- "jobs": [{"id", "attempt", "maxAttempts", "sourceType", "sourceId", "jobType", "keyId", "sessionId", "createdAt",
--   "event": null or {"id", "eventType", "sourceAdapter", "platformSource", "occurredAt", "payload"}}]}.
CREATE FUNCTION commonplace.lease_json(p_group commonplace.job_groups, p_team commonplace.teams, p_taken uuid[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT jsonb_build_object(
        'team', jsonb_build_object('id', p_team.id, 'defaultVisibility', p_team.default_visibility, 'generationMode', p_team.generation_mode),
        'limits', (SELECT to_jsonb(l) - 'team_id' FROM commonplace.team_limits l WHERE l.team_id = p_team.id),
        'project', (SELECT jsonb_build_object('id', p.id, 'name', p.name) FROM commonplace.projects p
                    WHERE p.team_id = p_team.id AND p.id = p_group.project_id),
        'sessionKey', p_group.session_key, 'leaseToken', p_group.lease_token, 'state', p_group.state,
        'request', (SELECT left(s.metadata ->> 'prompt', 2000) FROM commonplace.sessions s
                    WHERE s.team_id = p_team.id AND s.id = p_group.session_id AND s.prompt_actor = (
                        SELECT j.actor FROM commonplace.jobs j WHERE j.team_id = p_team.id AND j.id = p_taken[1])),
        'recent', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'title', coalesce(m.title, left(m.content, 120))) ORDER BY place), '[]')
            FROM jsonb_array_elements_text(p_group.state -> 'recent') WITH ORDINALITY AS known (id, place)
            JOIN commonplace.memories m ON m.team_id = p_team.id AND m.id = known.id::uuid AND m.superseded_by IS NULL),
        'jobs', (SELECT jsonb_agg(jsonb_build_object('id', j.id, 'attempt', j.attempts, 'maxAttempts', j.max_attempts,
                'sourceType', j.source_type, 'sourceId', j.source_id, 'jobType', j.job_type, 'keyId', j.key_id,
                'sessionId', j.session_id, 'createdAt', j.created_at,
                'event', CASE WHEN e.id IS NOT NULL THEN jsonb_build_object('id', e.id, 'eventType', e.event_type,
                    'sourceAdapter', e.source_adapter, 'platformSource', e.platform_source, 'occurredAt', e.occurred_at,
                    'payload', commonplace.handed_payload(e.payload, j.event_bytes)) END) ORDER BY j.number)
            FROM commonplace.jobs j LEFT JOIN commonplace.events e ON e.team_id = j.team_id AND e.id = j.event_id
            WHERE j.team_id = p_team.id AND j.id = ANY (p_taken)));
$$;

-- Leases a session for p_lease_seconds and returns lease_json with "expired": jobs given up in passing, and "paused": those of
-- p_credentials that nobody should call now. Without jobs, where groups were only put right: {"expired", "paused",
-- "pausedSeconds", "jobs": []}; NULL when nothing was due. While all of p_credentials are paused nothing is leased, and pausedSeconds says for how long.
-- Teams take turns: the next after p_after that has due work, round and round, so that one team's backlog delays another's
-- job by one turn. Within a team, the session that waited longest. Teams that are held or detached are passed over.
-- p_credentials NULL: a worker of the version before asks. It knows neither turns, so it starts anywhere, nor summaries, which
-- it would complete unwritten, so they are left to others.
DROP FUNCTION commonplace.claim_v1(text, integer, integer);
CREATE FUNCTION commonplace.claim_v1(p_worker text, p_lease_seconds integer, p_max_jobs integer,
    p_after uuid DEFAULT '00000000-0000-0000-0000-000000000000', p_credentials text[] DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before_all constant uuid := '00000000-0000-0000-0000-000000000000';
    reached uuid := p_after;
    has_turned boolean := p_after = before_all;
    put_right integer := 0;
    found_group commonplace.job_groups;
    team commonplace.teams;
    taken uuid[];
    expired integer := 0;
    paused text[];
    paused_until timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM commonplace.job_groups WHERE available_at <= now()) THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(array_agg(p.credential), '{}'), min(p.paused_until) INTO paused, paused_until
        FROM commonplace.provider_pauses p WHERE p.credential = ANY (p_credentials) AND p.paused_until > now();
    IF cardinality(paused) > 0 AND paused @> p_credentials THEN
        RETURN jsonb_build_object('expired', 0, 'paused', to_jsonb(paused), 'jobs', '[]'::jsonb,
            'pausedSeconds', extract(epoch FROM paused_until - now()));
    END IF;
    IF p_credentials IS NULL THEN
        SELECT id INTO reached FROM commonplace.teams ORDER BY random() LIMIT 1;
        has_turned := false;
    END IF;
    LOOP
        SELECT * INTO found_group FROM commonplace.next_group(reached, p_credentials IS NOT NULL);
        IF NOT FOUND THEN
            EXIT WHEN has_turned;
            has_turned := true;
            reached := before_all;
            CONTINUE;
        END IF;
        SELECT * INTO team FROM commonplace.teams WHERE id = found_group.team_id;
        IF found_group.lease_until IS NOT NULL THEN
            expired := expired + commonplace.bury_spent_jobs(found_group.team_id, found_group.project_id, found_group.session_key);
            PERFORM commonplace.end_reservation(found_group.team_id, found_group.project_id, found_group.session_key, false);
        END IF;
        taken := commonplace.take_due_jobs(found_group.team_id, found_group.project_id, found_group.session_key, p_worker, p_max_jobs);
        IF taken IS NULL THEN
            PERFORM commonplace.free_group(found_group.team_id, found_group.project_id, found_group.session_key);
            -- Bounded: groups without due work are put right in passing, one claim must stay short, and no team waits for another's.
            put_right := put_right + 1;
            EXIT WHEN put_right = 100;
            reached := CASE WHEN put_right % 20 = 0 THEN team.id ELSE reached END;
            CONTINUE;
        END IF;
        UPDATE commonplace.job_groups SET lease_token = lease_token + 1, leased_by = p_worker,
            lease_until = now() + make_interval(secs => p_lease_seconds), available_at = now() + make_interval(secs => p_lease_seconds)
        WHERE team_id = found_group.team_id AND project_id = found_group.project_id AND session_key = found_group.session_key
        RETURNING * INTO found_group;
        RETURN commonplace.lease_json(found_group, team, taken) || jsonb_build_object('expired', expired, 'paused', to_jsonb(paused));
    END LOOP;
    RETURN CASE WHEN put_right > 0 THEN jsonb_build_object('expired', expired, 'paused', to_jsonb(paused), 'jobs', '[]'::jsonb) END;
END
$$;

-- The team whose turn it is after p_after, or NULL for the first one: who is to be passed over when a claim of it broke.
CREATE FUNCTION commonplace.next_team_v1(p_after uuid) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT team_id FROM commonplace.next_group(p_after, true)';

-- Writes what a model call made of the lease's jobs, completes them and gives the group back.
-- p_results: {"provider", "model", "spent": as in count_spent, "seconds": the worker's time or null, "state": for the next call
--   or absent, "jobs": [{"id", "skipped": why no call was made for it or null, "memories": [{"id", "index", "kind", "title", "content",
--   "metadata", "keywords", "tags", "replaces": [memory id], "sources": [{"eventId", "jobId"} or {"sessionId", "jobId"}]}]}]}.
-- A memory stays in the job's own team and project, and replaces only what the job's own actor wrote there. A job that was
-- cancelled or erased meanwhile persists nothing, nor does a memory one of whose events was erased. Taken jobs that p_results
-- leaves out are handed back.
-- Returns {"outcome": written|lease_lost, "jobs": completed, "memories": written, "handedBack"}. Running it again writes nothing.
CREATE OR REPLACE FUNCTION commonplace.complete_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint,
    p_results jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    cited uuid[];
    named uuid[];
    standing uuid[];
    finished uuid[];
    heard uuid[];
    payer uuid;
    written integer;
    handed integer;
    is_first boolean;
    adopted_visibility text;
    next_state jsonb := p_results -> 'state';
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN jsonb_build_object('outcome', 'lease_lost', 'jobs', 0, 'memories', 0, 'handedBack', 0);
    END IF;
    -- Running it again, because the first answer was lost, must not count the calls twice.
    SELECT lease_until IS NOT NULL INTO is_first FROM commonplace.job_groups
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
    -- Ids as arrays: the planner then takes the key, whatever it guesses of the length of a list in JSON.
    cited := ARRAY(SELECT (source ->> 'eventId')::uuid FROM jsonb_array_elements(p_results -> 'jobs') AS result,
        jsonb_array_elements(result -> 'memories') AS memory, jsonb_array_elements(memory -> 'sources') AS source);
    named := ARRAY(SELECT (result ->> 'id')::uuid FROM jsonb_array_elements(p_results -> 'jobs') AS result);
    standing := ARRAY(SELECT id FROM commonplace.events WHERE team_id = p_team_id AND project_id = p_project_id AND id = ANY (cited)
        ORDER BY id FOR KEY SHARE);
    SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(id) FILTER (WHERE awaited), '{}'), (array_agg(key_id ORDER BY number))[1]
    INTO finished, heard, payer FROM (
        SELECT id, number, key_id, awaited FROM commonplace.jobs
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key AND status = 'processing'
            AND id = ANY (named)
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
            WHERE source ? 'eventId' AND (source ->> 'eventId')::uuid <> ALL (standing))),
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
        SELECT made.id, p_team_id, CASE WHEN source ? 'eventId' THEN 'agent_event' ELSE 'session_summary' END,
            coalesce(source ->> 'eventId', source ->> 'sessionId')::uuid, (source ->> 'eventId')::uuid,
            CASE WHEN (source ->> 'jobId')::uuid = ANY (finished) THEN (source ->> 'jobId')::uuid END,
            jsonb_build_object('provider', p_results -> 'provider', 'parsedObservationIndex', wanted.memory -> 'index',
                'source_adapter', wanted.source_adapter, 'actor_id', wanted.actor, 'api_key_id', wanted.key_id)
        FROM made JOIN wanted USING (generation_key) CROSS JOIN jsonb_array_elements(wanted.memory -> 'sources') AS source
        ON CONFLICT (memory_id, source_type, source_id) DO NOTHING),
    replaced AS (
        UPDATE commonplace.memories old SET superseded_by = made.id, valid_to = now(), updated_at = clock_timestamp()
        FROM made JOIN wanted USING (generation_key) CROSS JOIN jsonb_array_elements_text(wanted.memory -> 'replaces') AS stale (id)
        WHERE old.team_id = p_team_id AND old.project_id = p_project_id AND old.id = stale.id::uuid
            AND old.owner_actor = wanted.actor AND old.superseded_by IS NULL),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id, 'observation.created', 'observation', made.id::text,
            jsonb_build_object('generationJobId', made.job_id, 'sourceType', source_type, 'sourceId', source_id,
                'provider', p_results -> 'provider', 'model', p_results -> 'model', 'sourceAdapter', source_adapter,
                'parsedObservationIndex', memory -> 'index', 'kind', memory -> 'kind')
        FROM made JOIN wanted USING (generation_key)),
    closed AS (
        UPDATE commonplace.jobs SET status = 'completed', completed_at = now(), locked_at = NULL, locked_by = NULL, last_error = NULL,
            service_seconds = coalesce(service_seconds, 0) + (p_results ->> 'seconds')::real / nullif(cardinality(finished), 0),
            updated_at = now()
        WHERE team_id = p_team_id AND id = ANY (finished)
        RETURNING id, key_id, actor, request_id, event_id, source_type, attempts),
    closed_noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, closed.key_id, closed.actor, closed.request_id, 'generation_job.completed',
            'observation_generation_job', closed.id::text,
            jsonb_strip_nulls(jsonb_build_object('generationJobId', closed.id, 'provider', p_results -> 'provider', 'model', p_results -> 'model',
                'observationCount', (SELECT count(*) FROM made WHERE made.job_id = closed.id),
                'observationIds', (SELECT coalesce(jsonb_agg(made.id), '[]') FROM made WHERE made.job_id = closed.id),
                'sourceAdapter', event.source_adapter, 'sourceType', closed.source_type, 'skipped', result -> 'skipped'))
        FROM closed LEFT JOIN commonplace.events event ON event.team_id = p_team_id AND event.id = closed.event_id
            LEFT JOIN jsonb_array_elements(p_results -> 'jobs') AS result ON (result ->> 'id')::uuid = closed.id)
    SELECT count(*) INTO written FROM made;
    UPDATE commonplace.sessions SET last_generated_at = now(), updated_at = now()
        WHERE team_id = p_team_id AND id = ANY (ARRAY(
            SELECT DISTINCT session_id FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (finished) AND session_id IS NOT NULL));
    -- Of a summary whose job was cancelled meanwhile nothing was stored, and the state must not say so.
    IF EXISTS (SELECT FROM jsonb_array_elements(p_results -> 'jobs') AS result, jsonb_array_elements(result -> 'memories') AS memory
            WHERE memory -> 'id' = next_state -> 'summaryMemory' AND (result ->> 'id')::uuid <> ALL (finished)) THEN
        SELECT next_state || jsonb_build_object('isStored', false, 'summaryMemory', state -> 'summaryMemory') INTO next_state
            FROM commonplace.job_groups WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
    END IF;
    handed := commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.let_go(p_team_id, p_project_id, p_session_key, CASE WHEN cardinality(finished) > 0 THEN next_state END);
    IF is_first THEN
        PERFORM commonplace.end_reservation(p_team_id, p_project_id, p_session_key, true);
        PERFORM commonplace.count_spent(p_team_id, p_project_id, payer, commonplace.spent_of(p_results), p_results ->> 'model', written);
    END IF;
    PERFORM pg_notify('commonplace_jobs', id::text) FROM unnest(heard) AS id;
    RETURN jsonb_build_object('outcome', 'written', 'jobs', cardinality(finished), 'memories', written, 'handedBack', handed);
END
$$;

-- Ends an attempt without memories: each job is tried again later or is given up.
-- p_failures: {"provider", "model", "spent": as in count_spent, "seconds": the worker's time or null, "jobs": [{"id", "retryAfterSeconds" (null: give up),
--   "counted": whether the attempt counts, "error": {"reason", "classification", …}}]}. Taken jobs that it leaves out are
-- handed back. Returns {"outcome": written|lease_lost, "retried", "failed", "handedBack"}. Running it again writes nothing.
CREATE OR REPLACE FUNCTION commonplace.fail_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint,
    p_failures jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    named uuid[];
    failed uuid[];
    heard uuid[];
    retried integer;
    payer uuid;
    handed integer;
    is_first boolean;
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN jsonb_build_object('outcome', 'lease_lost', 'retried', 0, 'failed', 0, 'handedBack', 0);
    END IF;
    -- Running it again, because the first answer was lost, must not count the calls twice.
    SELECT lease_until IS NOT NULL INTO is_first FROM commonplace.job_groups
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = p_session_key;
    named := ARRAY(SELECT (verdict ->> 'id')::uuid FROM jsonb_array_elements(p_failures -> 'jobs') AS verdict);
    SELECT (array_agg(key_id ORDER BY number))[1] INTO payer FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (named);
    WITH verdict AS (
        SELECT job.id, verdict -> 'error' AS error, coalesce((verdict ->> 'counted')::boolean, true) AS counted,
            make_interval(secs => (verdict ->> 'retryAfterSeconds')::double precision) AS pause,
            verdict ->> 'retryAfterSeconds' IS NOT NULL
                AND (job.attempts < job.max_attempts OR NOT coalesce((verdict ->> 'counted')::boolean, true)) AS again
        FROM jsonb_array_elements(p_failures -> 'jobs') AS verdict
            JOIN commonplace.jobs job ON job.team_id = p_team_id AND job.id = (verdict ->> 'id')::uuid AND job.id = ANY (named)),
    ended AS (
        UPDATE commonplace.jobs job SET
            status = CASE WHEN again THEN 'queued' ELSE 'failed' END,
            failed_at = CASE WHEN again THEN NULL ELSE now() END,
            attempts = CASE WHEN counted THEN job.attempts ELSE greatest(job.attempts - 1, 0) END,
            run_after = CASE WHEN again THEN now() + pause ELSE job.run_after END,
            service_seconds = coalesce(job.service_seconds, 0) + coalesce((p_failures ->> 'seconds')::real / nullif(cardinality(named), 0), 0),
            last_error = error, locked_at = NULL, locked_by = NULL, updated_at = now()
        FROM verdict
        WHERE job.team_id = p_team_id AND job.project_id = p_project_id AND job.session_key = p_session_key
            AND job.id = verdict.id AND job.status = 'processing'
        RETURNING job.id, job.status, job.key_id, job.actor, job.request_id, job.attempts, job.last_error, job.awaited),
    noted AS (
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        SELECT p_team_id, p_project_id, key_id, actor, request_id,
            CASE status WHEN 'failed' THEN 'generation_job.failed' ELSE 'generation_job.retry_scheduled' END,
            'observation_generation_job', id::text,
            last_error || jsonb_build_object('attempts', attempts, 'provider', p_failures -> 'provider', 'model', p_failures -> 'model')
        FROM ended)
    SELECT coalesce(array_agg(id) FILTER (WHERE status = 'failed'), '{}'), count(*) FILTER (WHERE status = 'queued'),
        coalesce(array_agg(id) FILTER (WHERE status = 'failed' AND awaited), '{}')
    INTO failed, retried, heard FROM ended;
    handed := commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.let_go(p_team_id, p_project_id, p_session_key, NULL);
    IF is_first THEN
        PERFORM commonplace.end_reservation(p_team_id, p_project_id, p_session_key, true);
        PERFORM commonplace.count_spent(p_team_id, p_project_id, payer, commonplace.spent_of(p_failures), '', 0);
    END IF;
    PERFORM pg_notify('commonplace_jobs', id::text) FROM unnest(heard) AS id;
    RETURN jsonb_build_object('outcome', 'written', 'retried', retried, 'failed', cardinality(failed), 'handedBack', handed);
END
$$;

-- A worker that stops hands its lease back; the attempt does not count. A call that it broke off may be billed all the same,
-- so what was set aside for it counts as spent. False: the lease was lost already.
CREATE OR REPLACE FUNCTION commonplace.release_jobs_v1(p_team_id uuid, p_project_id uuid, p_session_key text, p_lease_token bigint)
RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT commonplace.hold_lease(p_team_id, p_project_id, p_session_key, p_lease_token) THEN
        RETURN false;
    END IF;
    PERFORM commonplace.hand_back(p_team_id, p_project_id, p_session_key);
    PERFORM commonplace.let_go(p_team_id, p_project_id, p_session_key, NULL);
    PERFORM commonplace.end_reservation(p_team_id, p_project_id, p_session_key, false);
    RETURN true;
END
$$;

-- Calls of a turn that writes nothing: its lease was lost, or its worker was stopped. Not of a team with a budget: what was set
-- aside for them counts. Running it again counts again.
CREATE FUNCTION commonplace.count_lost_v1(p_team_id uuid, p_project_id uuid, p_key_id uuid, p_spent jsonb) RETURNS void
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    PERFORM commonplace.count_spent(p_team_id, p_project_id, p_key_id, p_spent, '', 0);
END
$$;

-- Of the version before; nothing calls it any more.
DROP FUNCTION commonplace.count_generation(uuid, uuid, uuid, jsonb, bigint);

GRANT EXECUTE ON FUNCTION
    commonplace.end_reservation(uuid, uuid, text, boolean),
    commonplace.reserve_v1(uuid, uuid, text, bigint, jsonb),
    commonplace.count_lost_v1(uuid, uuid, uuid, jsonb),
    commonplace.claim_v1(text, integer, integer, uuid, text[]),
    commonplace.next_team_v1(uuid)
TO commonplace_runtime;
