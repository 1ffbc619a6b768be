-- What generation keeps beyond a job's row: policies on groups, budgets, pauses of providers.

ALTER TABLE commonplace.job_groups
    ADD COLUMN session_id uuid,
    ADD COLUMN waiting integer NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    ADD COLUMN waiting_since timestamptz,
    ADD COLUMN state jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN state_at timestamptz;
COMMENT ON COLUMN commonplace.job_groups.waiting IS 'Open jobs, exact up to 1,000: what a policy counts and what the backlog sums.';
COMMENT ON COLUMN commonplace.job_groups.waiting_since IS 'When the oldest open job came; NULL when none is open.';
COMMENT ON COLUMN commonplace.job_groups.state IS
    'What the next call is told of this session: {"digests": of events seen, "recent": memory ids, "summary": running summary}.';
COMMENT ON COLUMN commonplace.job_groups.state_at IS
    'When the state was last written: a month later, with nothing open, it is forgotten. NULL: there is none.';

-- Taking turns between teams, and the backlog without a visit to the table.
CREATE INDEX job_groups_of_team ON commonplace.job_groups (team_id, available_at) WHERE available_at IS NOT NULL;
DROP INDEX commonplace.job_groups_available;
CREATE INDEX job_groups_available ON commonplace.job_groups (available_at) INCLUDE (team_id, waiting) WHERE available_at IS NOT NULL;
CREATE INDEX job_groups_with_state ON commonplace.job_groups (state_at) WHERE state_at IS NOT NULL AND available_at IS NULL;
CREATE INDEX job_groups_of_session ON commonplace.job_groups (team_id, session_id) WHERE session_id IS NOT NULL;

ALTER TABLE commonplace.jobs
    ADD COLUMN revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    ADD COLUMN service_seconds real,
    ADD COLUMN retried integer NOT NULL DEFAULT 0,
    ADD COLUMN awaited boolean NOT NULL DEFAULT false,
    ADD COLUMN covers_event bigint,
    ADD COLUMN event_bytes integer;
COMMENT ON COLUMN commonplace.jobs.revision IS 'A session that goes on after its end gets a further summary: the next revision.';
COMMENT ON COLUMN commonplace.jobs.service_seconds IS 'A worker''s time for this job, tries that failed included: a turn''s time from claim to write, shared among its jobs.';
COMMENT ON COLUMN commonplace.jobs.retried IS 'How often a person asked for it again.';
COMMENT ON COLUMN commonplace.jobs.awaited IS
    'Somebody waits for its end and is told by NOTIFY. Only then: a notice makes commits wait for each other.';
COMMENT ON COLUMN commonplace.jobs.event_bytes IS
    'Its event''s payload as JSON text, which may be a hundred times what is stored. NULL: queued before it was measured.';
COMMENT ON COLUMN commonplace.jobs.covers_event IS 'Of a summary: number of the session''s newest event when it was asked for.';

DO $$
DECLARE
    outdated text := (SELECT conname FROM pg_constraint WHERE conrelid = 'commonplace.jobs'::regclass AND contype = 'u'
        AND pg_get_constraintdef(oid) = 'UNIQUE (team_id, project_id, source_type, source_id, job_type)');
BEGIN
    EXECUTE format('ALTER TABLE commonplace.jobs DROP CONSTRAINT %I', outdated);
END
$$;
ALTER TABLE commonplace.jobs ADD CONSTRAINT jobs_source UNIQUE (team_id, project_id, source_type, source_id, job_type, revision);

-- What groups count that were queued before they counted. Here, where the table is locked since the first line: after 0006 has
-- locked the sessions, it would wait for a worker's group while that worker waits for the sessions.
UPDATE commonplace.job_groups g SET waiting = least(open.jobs, 1000), waiting_since = open.oldest, session_id = open.session_id
FROM (SELECT team_id, project_id, session_key, count(*) AS jobs, min(created_at) AS oldest, (array_agg(session_id))[1] AS session_id
    FROM commonplace.jobs WHERE status IN ('queued', 'processing') GROUP BY team_id, project_id, session_key) AS open
WHERE g.team_id = open.team_id AND g.project_id = open.project_id AND g.session_key = open.session_key;

-- Lanes, dead letters and service times, each read from an index alone.
CREATE INDEX jobs_queued ON commonplace.jobs (source_type, run_after) WHERE status = 'queued';
CREATE INDEX jobs_processing ON commonplace.jobs (source_type) WHERE status = 'processing';
CREATE INDEX jobs_completed ON commonplace.jobs (source_type, completed_at DESC) INCLUDE (service_seconds) WHERE status = 'completed';
CREATE INDEX jobs_failed ON commonplace.jobs (team_id, failed_at DESC) WHERE status = 'failed';

-- Both are rewritten with every claim; the default of a fifth of the table would let dead rows pile up at the front of the queue.
ALTER TABLE commonplace.job_groups SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE commonplace.jobs SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- A team whose budget is spent: nothing of it is claimed until then. Capture, search, export and deletion go on.
CREATE TABLE commonplace.team_holds (
    team_id    uuid PRIMARY KEY REFERENCES commonplace.teams ON DELETE CASCADE,
    held_until timestamptz NOT NULL,
    reason     text NOT NULL CHECK (reason IN ('tokens', 'cost', 'soft_tokens', 'soft_cost', 'reserved')),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN commonplace.team_holds.reason IS
    'tokens, cost: the month is spent. soft_…: the soft limit is, generation waits for the night. reserved: calls under way may spend the rest.';

-- What a call under way may cost, of teams with a budget. It ends with the call; where the worker died it is counted as spent.
CREATE TABLE commonplace.reservations (
    team_id       uuid NOT NULL,
    project_id    uuid NOT NULL,
    session_key   text NOT NULL,
    key_id        uuid,
    provider      text NOT NULL,
    model         text NOT NULL,
    input_tokens  bigint NOT NULL CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL CHECK (output_tokens >= 0),
    cost_microusd bigint NOT NULL CHECK (cost_microusd >= 0),
    place         integer NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, project_id, session_key),
    FOREIGN KEY (team_id, project_id, session_key)
        REFERENCES commonplace.job_groups (team_id, project_id, session_key) ON DELETE CASCADE
);

-- A provider that refused everybody: no worker calls it until then. One row for a provider with one endpoint and one key.
CREATE TABLE commonplace.provider_pauses (
    credential   text PRIMARY KEY,
    paused_until timestamptz NOT NULL,
    reason       text NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN commonplace.provider_pauses.credential IS 'The provider''s name and a digest of endpoint and key; the key is not in it.';

DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['team_holds', 'reservations'] LOOP
        EXECUTE format('ALTER TABLE commonplace.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY team_only ON commonplace.%I TO commonplace_runtime '
            'USING (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid)) '
            'WITH CHECK (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid))', tenant_table);
        EXECUTE format('CREATE POLICY owner_all ON commonplace.%I TO commonplace_owner USING (true) WITH CHECK (true)', tenant_table);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE, DELETE ON commonplace.team_holds, commonplace.reservations TO commonplace_runtime;
GRANT SELECT, INSERT, UPDATE ON commonplace.provider_pauses TO commonplace_runtime;

-- What is decided about a team's budget is decided by one at a time.
CREATE FUNCTION commonplace.lock_budget(p_team_id uuid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('commonplace.budget:' || p_team_id, 0));
END
$$;

-- Another limit may mean another answer: the next call asks again. Under the lock: a refusal by the limit before is either
-- seen here or comes later, by the limit that is new.
CREATE FUNCTION commonplace.lift_hold() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM commonplace.lock_budget(NEW.team_id);
    DELETE FROM commonplace.team_holds WHERE team_id = NEW.team_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER lift_hold AFTER UPDATE ON commonplace.team_limits FOR EACH ROW
    WHEN ((OLD.tokens_per_month, OLD.cost_per_month_usd, OLD.soft_tokens_per_month, OLD.soft_cost_per_month_usd)
        IS DISTINCT FROM (NEW.tokens_per_month, NEW.cost_per_month_usd, NEW.soft_tokens_per_month, NEW.soft_cost_per_month_usd))
    EXECUTE FUNCTION commonplace.lift_hold();

-- Every call and every request of a team adds to the same sums. Spread over eight rows, they seldom wait for each other's
-- commit; whoever reads adds them up. authenticate_v1 only has to name the new column in its ON CONFLICT, and so does
-- count_generation, for the workers of the version before, until 0007.
ALTER TABLE commonplace.usage_counters ADD COLUMN shard smallint NOT NULL DEFAULT 0;
ALTER TABLE commonplace.usage_counters ALTER COLUMN shard SET DEFAULT pg_backend_pid() % 8;
DO $$
DECLARE
    whole_key text := '(team_id, month, kind, project_id, key_id, model)';
    outdated text := (SELECT conname FROM pg_constraint WHERE conrelid = 'commonplace.usage_counters'::regclass AND contype = 'u');
    counting oid;
BEGIN
    EXECUTE format('ALTER TABLE commonplace.usage_counters DROP CONSTRAINT %I', outdated);
    FOREACH counting IN ARRAY ARRAY['commonplace.authenticate_v1(text)'::regprocedure,
            'commonplace.count_generation(uuid, uuid, uuid, jsonb, bigint)'::regprocedure] LOOP
        EXECUTE replace(pg_get_functiondef(counting), whole_key, '(team_id, month, kind, project_id, key_id, model, shard)');
    END LOOP;
END
$$;
ALTER TABLE commonplace.usage_counters ADD CONSTRAINT usage_counters_key
    UNIQUE NULLS NOT DISTINCT (team_id, month, kind, project_id, key_id, model, shard);

-- How long a session must be silent before a policy lets its events go. per-event: not at all.
-- end-of-session: only agents that never say goodbye are waited for like this, half an hour at least.
CREATE FUNCTION commonplace.policy_silence(p_mode text, p_window_seconds integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_mode
    WHEN 'debounce' THEN make_interval(secs => p_window_seconds)
    WHEN 'end-of-session' THEN make_interval(secs => greatest(p_window_seconds, 1800))
    ELSE interval '0' END;

-- When a group may be claimed that has p_waiting open jobs, the oldest since p_since, the newest from p_newest.
-- debounce: after its silence, with 30 jobs, or ten windows after the oldest. end-of-session: its end is not known here;
-- without one after its silence, or a day after the oldest.
CREATE FUNCTION commonplace.policy_due(p_mode text, p_window_seconds integer, p_waiting integer, p_since timestamptz, p_newest timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_mode = 'debounce' AND p_waiting >= 30 THEN p_newest
    WHEN p_mode = 'debounce' THEN least(p_newest + make_interval(secs => p_window_seconds),
        p_since + 10 * make_interval(secs => p_window_seconds))
    WHEN p_mode = 'end-of-session' THEN least(p_newest + commonplace.policy_silence(p_mode, p_window_seconds), p_since + interval '1 day')
    ELSE p_newest END;

-- Whether a call may be made at p_at, of a team that spent so much this month and has so much set aside for calls under way:
-- no refusal, or why and until when. Refused once the limit is reached, so the last call may pass it: at most that one.
-- From 02:00 to 06:00 UTC a soft limit does not hold.
CREATE FUNCTION commonplace.budget_verdict(p_limits commonplace.team_limits, p_spent_tokens bigint, p_spent_cost bigint,
    p_aside_tokens bigint, p_aside_cost bigint, p_at timestamptz, OUT refusal text, OUT until timestamptz)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT reason, CASE
        WHEN reason IN ('tokens', 'cost') THEN (date_trunc('month', utc) + interval '1 month') AT TIME ZONE 'UTC'
        WHEN reason IN ('soft_tokens', 'soft_cost') THEN
            (date_trunc('day', utc - interval '2 hours') + interval '1 day 2 hours') AT TIME ZONE 'UTC'
        -- Until one of the calls under way has ended, which lifts it.
        WHEN reason = 'reserved' THEN p_at + interval '1 minute' END
    FROM (SELECT utc, CASE
            WHEN p_spent_tokens >= p_limits.tokens_per_month THEN 'tokens'
            WHEN p_spent_cost >= p_limits.cost_per_month_usd * 1000000 THEN 'cost'
            WHEN is_day AND p_spent_tokens >= p_limits.soft_tokens_per_month THEN 'soft_tokens'
            WHEN is_day AND p_spent_cost >= p_limits.soft_cost_per_month_usd * 1000000 THEN 'soft_cost'
            WHEN p_spent_tokens + p_aside_tokens >= p_limits.tokens_per_month
                OR p_spent_cost + p_aside_cost >= p_limits.cost_per_month_usd * 1000000 THEN 'reserved' END AS reason
        FROM (SELECT p_at AT TIME ZONE 'UTC' AS utc, extract(hour FROM p_at AT TIME ZONE 'UTC') NOT BETWEEN 2 AND 5 AS is_day) AS clock)
        AS verdict
$$;

-- Adds calls to the month's sums. p_spent: [{"model", "inputTokens", "outputTokens", "costMicrousd"}], one a call.
CREATE FUNCTION commonplace.count_spent(p_team_id uuid, p_project_id uuid, p_key_id uuid, p_spent jsonb, p_model text, p_memories bigint)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    -- In a fixed order: two sessions of one team finish at once without a deadlock.
    INSERT INTO commonplace.usage_counters AS known (team_id, project_id, key_id, month, kind, model, quantity)
    SELECT p_team_id, p_project_id, p_key_id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, kind, model, sum(quantity)
    FROM (
        SELECT 'observation' AS kind, coalesce(p_model, '') AS model, p_memories AS quantity
        UNION ALL
        SELECT counted.kind, coalesce(spend ->> 'model', ''), counted.quantity
        FROM jsonb_array_elements(p_spent) AS spend CROSS JOIN LATERAL (VALUES
            ('cost_microusd', coalesce((spend ->> 'costMicrousd')::bigint, 0)),
            ('input_tokens', coalesce((spend ->> 'inputTokens')::bigint, 0)),
            ('model_calls', 1),
            ('output_tokens', coalesce((spend ->> 'outputTokens')::bigint, 0)),
            ('tokens', coalesce((spend ->> 'inputTokens')::bigint, 0) + coalesce((spend ->> 'outputTokens')::bigint, 0))
        ) AS counted (kind, quantity)) AS each
    GROUP BY kind, model HAVING sum(quantity) > 0 ORDER BY kind, model
    ON CONFLICT (team_id, month, kind, project_id, key_id, model, shard)
        DO UPDATE SET quantity = known.quantity + excluded.quantity, updated_at = now();
$$;

-- What p_results of a worker of the version before says of its one call.
CREATE FUNCTION commonplace.spent_of(p_results jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_results -> 'spent', CASE WHEN p_results ? 'inputTokens' THEN jsonb_build_array(p_results) ELSE '[]' END);
GRANT EXECUTE ON FUNCTION commonplace.lock_budget(uuid),
    commonplace.count_spent(uuid, uuid, uuid, jsonb, text, bigint),
    commonplace.spent_of(jsonb),
    commonplace.budget_verdict(commonplace.team_limits, bigint, bigint, bigint, bigint, timestamptz),
    commonplace.policy_silence(text, integer),
    commonplace.policy_due(text, integer, integer, timestamptz, timestamptz) TO commonplace_runtime;
