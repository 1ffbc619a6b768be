-- Erasure that reaches everything, in batches: what is to go is written down first, then goes in short transactions, whoever
-- runs them. Lock order everywhere: group, events, jobs, session, counters.
-- Locks: job_groups, sessions, events, jobs, memories, memory_sources
-- Locks against writes: projects, audit_log

-- Who erased what, when, and how far it has come. Nothing of what was erased is in it once it is done.
CREATE TABLE commonplace.erasures (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL,
    project_id  uuid NOT NULL,
    key_id      uuid,
    actor       text NOT NULL,
    request_id  text,
    via         text NOT NULL,
    action      text NOT NULL,
    what        text NOT NULL CHECK (what IN ('memory', 'query', 'session', 'file', 'project')),
    resource_id uuid,
    selection   jsonb NOT NULL DEFAULT '{}',
    phase       text NOT NULL DEFAULT 'memories' CHECK (phase IN ('memories', 'events', 'groups', 'sessions', 'audit', 'done')),
    reached     text,
    last_event  bigint NOT NULL,
    last_memory bigint NOT NULL,
    counts      jsonb NOT NULL DEFAULT '{}',
    lease_token bigint NOT NULL DEFAULT 1,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE,
    UNIQUE (team_id, id),
    CHECK ((phase = 'done') = (lease_until IS NULL))
);
COMMENT ON COLUMN commonplace.erasures.resource_id IS 'The memory or session that was named.';
COMMENT ON COLUMN commonplace.erasures.selection IS 'What is still needed to know what goes: {"file"}. Empty once it is done.';
COMMENT ON COLUMN commonplace.erasures.reached IS 'How far the phase has come, in its own order; NULL: its beginning.';
COMMENT ON COLUMN commonplace.erasures.last_event IS 'Events, and memories, with greater numbers came later and stay.';
COMMENT ON COLUMN commonplace.erasures.lease_token IS 'Grows with each process that takes the erasure over; only the newest goes on.';
CREATE INDEX erasures_open ON commonplace.erasures (lease_until) WHERE phase <> 'done';

-- What is still to go, where that is not all that its project had.
CREATE TABLE commonplace.erasure_items (
    team_id    uuid NOT NULL,
    erasure_id uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('memory', 'event', 'session')),
    id         uuid NOT NULL,
    PRIMARY KEY (team_id, erasure_id, kind, id),
    FOREIGN KEY (team_id, erasure_id) REFERENCES commonplace.erasures (team_id, id) ON DELETE CASCADE
);

DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['erasures', 'erasure_items'] LOOP
        EXECUTE format('ALTER TABLE commonplace.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY team_only ON commonplace.%I TO commonplace_runtime '
            'USING (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid)) '
            'WITH CHECK (team_id = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid))', tenant_table);
        EXECUTE format('CREATE POLICY owner_all ON commonplace.%I TO commonplace_owner USING (true) WITH CHECK (true)', tenant_table);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE ON commonplace.erasures TO commonplace_runtime;
GRANT SELECT, INSERT, DELETE ON commonplace.erasure_items TO commonplace_runtime;

-- Until a table is first analysed, all indexes that begin with what a statement names look alike, and the newest one is taken: of an
-- empty database the keys that references are checked by become newer than all that begin with the team too. Else each
-- check would read its team's whole table, on connections that planned it while there was nothing in it.
DO $$
DECLARE
    keyed regclass;
    is_used boolean;
    key record;
    referring text[];
    statement text;
BEGIN
    FOREACH keyed IN ARRAY ARRAY['commonplace.sessions', 'commonplace.events', 'commonplace.jobs', 'commonplace.memories']::regclass[] LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', keyed) INTO is_used;
        CONTINUE WHEN is_used;
        SELECT conname AS name, conindid AS index INTO STRICT key FROM pg_constraint
            WHERE conrelid = keyed AND contype = 'u' AND pg_get_constraintdef(oid) = 'UNIQUE (team_id, id)';
        referring := ARRAY(SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE contype = 'f' AND confrelid = keyed AND conindid = key.index ORDER BY oid);
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', keyed, key.name);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I UNIQUE (team_id, id)', keyed, key.name);
        FOREACH statement IN ARRAY referring LOOP
            EXECUTE statement;
        END LOOP;
    END LOOP;
END
$$;

-- Every row that goes is looked for by whatever refers to it: without these, each would read its team's whole table. All columns
-- of the reference stand in the index, the team last: nothing but that reference can take it, whatever the planner knows.
CREATE INDEX jobs_of_session ON commonplace.jobs (session_id, team_id) WHERE session_id IS NOT NULL;
CREATE INDEX jobs_of_group ON commonplace.jobs (session_key, project_id, team_id);
CREATE INDEX jobs_of_event ON commonplace.jobs (event_id, team_id) WHERE event_id IS NOT NULL;
CREATE INDEX memories_of_job ON commonplace.memories (job_id, team_id) WHERE job_id IS NOT NULL;
CREATE INDEX memories_of_session ON commonplace.memories (session_id, team_id) WHERE session_id IS NOT NULL;
DROP INDEX commonplace.memory_sources_of_event;
CREATE INDEX memory_sources_of_event ON commonplace.memory_sources (event_id, team_id) WHERE event_id IS NOT NULL;
CREATE INDEX memory_sources_of_memory ON commonplace.memory_sources (memory_id, team_id);
CREATE INDEX memory_sources_of_job ON commonplace.memory_sources (job_id, team_id) WHERE job_id IS NOT NULL;
CREATE INDEX audit_log_of_resource ON commonplace.audit_log (team_id, resource_id) WHERE resource_id IS NOT NULL;
-- Reads that name memories. A short pending list: whoever fills it tidies it up, and a read must not wait long for that.
CREATE INDEX audit_log_observations ON commonplace.audit_log USING gin ((details -> 'observationIds'))
    WITH (gin_pending_list_limit = 256) WHERE details ? 'observationIds';

-- A group that was erased and comes again must not hand out a lease that an old worker still holds.
ALTER TABLE commonplace.job_groups ALTER COLUMN lease_token SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- What an audit row still says when its content is gone: which request, which kind of read, and figures.
CREATE FUNCTION commonplace.audit_remains(p_details jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_object_agg(key, value), '{}')
    FROM jsonb_each(CASE jsonb_typeof(p_details) WHEN 'object' THEN p_details ELSE '{}' END)
    WHERE key IN ('requestId', 'mode') OR jsonb_typeof(value) = 'number' OR key = 'counts' AND jsonb_typeof(value) = 'object')
    || '{"erased": true}';

-- Whether an audit row tells of what was captured; the others tell of keys, teams, projects and erasures, and stay.
CREATE FUNCTION commonplace.is_about_memory(p_resource_type text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_resource_type NOT IN ('api_key', 'team', 'team_member', 'project', 'quota', 'audit_log', 'erasure');

-- Rows of the team's audit that are about, or name, one of the ids and still have content. What tells of keys or projects is never
-- among them: an import names the ids of its memories, and may name that of a key. Planned for each call: a plan made while the
-- table was small would go through all of the team's rows.
CREATE FUNCTION commonplace.audit_naming(p_team_id uuid, p_ids text[]) RETURNS bigint[] LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN ARRAY(
        SELECT number FROM commonplace.audit_log WHERE team_id = p_team_id AND resource_id = ANY (p_ids)
            AND commonplace.is_about_memory(resource_type) AND NOT details @> '{"erased": true}'
        UNION
        SELECT number FROM commonplace.audit_log WHERE details ? 'observationIds' AND details -> 'observationIds' ?| p_ids
            AND team_id = p_team_id AND commonplace.is_about_memory(resource_type) AND NOT details @> '{"erased": true}');
END
$$;

-- Takes the content out of the audit rows that are about, or name, one of the ids, and says of how many; p_is_dry: only says.
-- SECURITY DEFINER, because audit is append-only for everybody: this and sweep_audit_v1 are the only ways that anything leaves
-- it, and only content does. Under row-level security the planner could not use the index on JSON either.
CREATE FUNCTION commonplace.blank_audit_v1(p_team_id uuid, p_ids text[], p_is_dry boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers bigint[];
BEGIN
    IF p_team_id::text IS DISTINCT FROM current_setting('app.team_id', true) THEN
        RETURN 0;
    END IF;
    numbers := commonplace.audit_naming(p_team_id, p_ids);
    IF NOT p_is_dry THEN
        UPDATE commonplace.audit_log SET details = commonplace.audit_remains(details) WHERE team_id = p_team_id AND number = ANY (numbers);
    END IF;
    RETURN cardinality(numbers);
END
$$;

-- Whether an audit row of a team is about a job, or names a memory, that is not there any more.
CREATE FUNCTION commonplace.names_gone(p_team_id uuid, p_type text, p_resource_id text, p_details jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    named uuid[];
BEGIN
    IF p_type = 'observation_generation_job' AND p_resource_id IS NOT NULL THEN
        RETURN NOT EXISTS (SELECT FROM commonplace.jobs WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_resource_id));
    ELSIF jsonb_typeof(p_details -> 'observationIds') = 'array' THEN
        named := ARRAY(SELECT DISTINCT id::uuid FROM jsonb_array_elements_text(p_details -> 'observationIds') AS id
            WHERE pg_input_is_valid(id, 'uuid'));
        RETURN cardinality(named) > (SELECT count(*) FROM commonplace.memories WHERE team_id = p_team_id AND id = ANY (named));
    END IF;
    RETURN false;
END
$$;

-- Goes through up to p_rows audit rows of the project after a moment and a number at that moment. Of those about memory it takes the
-- content: up to p_last of all, later of those that name what is gone. Returns {"reached": moment|number, "read", "blanked"}.
CREATE FUNCTION commonplace.sweep_audit_v1(p_team_id uuid, p_project_id uuid, p_after text, p_last timestamptz, p_rows integer)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    after_at timestamptz := split_part(p_after, '|', 1)::timestamptz;
    after_number bigint := split_part(p_after, '|', 2)::bigint;
    numbers bigint[];
    reached text;
    read integer;
BEGIN
    IF p_team_id::text IS DISTINCT FROM current_setting('app.team_id', true) THEN
        RETURN jsonb_build_object('reached', p_after, 'read', 0, 'blanked', 0);
    END IF;
    SELECT (array_agg(created_at || '|' || number ORDER BY created_at DESC, number DESC))[1], count(*),
        coalesce(array_agg(number) FILTER (WHERE commonplace.is_about_memory(resource_type) AND NOT details @> '{"erased": true}'
            AND (created_at <= p_last OR commonplace.names_gone(p_team_id, resource_type, resource_id, details))), '{}')
    INTO reached, read, numbers FROM (
        SELECT * FROM commonplace.audit_log WHERE team_id = p_team_id AND project_id = p_project_id
            AND (created_at, number) > (after_at, after_number) ORDER BY created_at, number LIMIT p_rows) AS next;
    UPDATE commonplace.audit_log SET details = commonplace.audit_remains(details) WHERE team_id = p_team_id AND number = ANY (numbers);
    RETURN jsonb_build_object('reached', coalesce(reached, p_after), 'read', read, 'blanked', cardinality(numbers));
END
$$;

-- Whether a path is the file: the path itself, or one that ends with it as a part of its own.
CREATE FUNCTION commonplace.is_file(p_path text, p_file text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_file <> '' AND (translate(p_path, '\', '/') IN (p_file, './' || p_file)
    OR p_file NOT LIKE '/%' AND right(translate(p_path, '\', '/'), length(p_file) + 1) = '/' || p_file);

-- Whether a memory's metadata, or what an event's payload says a tool was given or answered, names the file.
CREATE FUNCTION commonplace.tells_of_file(p_told jsonb, p_file text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN jsonb_typeof(p_told) = 'object' AND EXISTS (
        SELECT FROM jsonb_each(p_told) AS part (key, value) WHERE CASE
            WHEN key IN ('file_path', 'filePath', 'path', 'notebook_path', 'notebookPath', 'filename', 'target_file', 'relative_path',
                'paths', 'files', 'file_paths', 'filePaths', 'files_read', 'files_modified', 'filesRead', 'filesModified')
                THEN CASE jsonb_typeof(value) WHEN 'string' THEN commonplace.is_file(value #>> '{}', p_file)
                    WHEN 'array' THEN EXISTS (SELECT FROM jsonb_array_elements_text(value) AS path WHERE commonplace.is_file(path, p_file)) END
            WHEN key IN ('tool_input', 'toolInput', 'tool_response', 'toolResponse', 'file')
                THEN commonplace.tells_of_file(value, p_file) END);
END
$$;

-- Summaries, among what p_viewer sees (NULL: all), of the sessions that the events or the generated memories are of: they may
-- repeat them. A summary is made of what its own actor did.
CREATE FUNCTION commonplace.summaries_of(p_team_id uuid, p_viewer text, p_memories uuid[], p_events uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET join_collapse_limit = 1 SET plan_cache_mode = force_generic_plan AS $$
    SELECT ARRAY(SELECT DISTINCT m.id FROM (
            SELECT e.session_id, e.actor FROM unnest(p_events) AS gone (id)
                JOIN commonplace.events e ON e.team_id = p_team_id AND e.id = gone.id
            UNION
            SELECT g.session_id, g.owner_actor FROM unnest(p_memories) AS gone (id)
                JOIN commonplace.memories g ON g.team_id = p_team_id AND g.id = gone.id AND g.generation_key IS NOT NULL) AS touched
        JOIN commonplace.memories m ON m.team_id = p_team_id AND m.session_id = touched.session_id AND m.owner_actor = touched.actor
            AND (m.visibility = 'team' OR m.owner_actor = coalesce(p_viewer, m.owner_actor))
        JOIN commonplace.memory_sources s ON s.team_id = p_team_id AND s.memory_id = m.id AND s.source_type = 'session_summary')
$$;

-- Memories, among what p_viewer sees (NULL: all), that were made of the events.
CREATE FUNCTION commonplace.made_of(p_team_id uuid, p_viewer text, p_events uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET join_collapse_limit = 1 SET plan_cache_mode = force_generic_plan AS $$
    SELECT ARRAY(SELECT DISTINCT m.id FROM unnest(p_events) AS gone (id)
        JOIN commonplace.memory_sources s ON s.team_id = p_team_id AND s.event_id = gone.id
        JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = s.memory_id
            AND (m.visibility = 'team' OR m.owner_actor = coalesce(p_viewer, m.owner_actor)))
$$;

-- All that a selection means, of what the actor sees: the memories, the events that they came from or that were named, and the
-- summaries that may repeat them. p_selection: {"memories"} of memory and query, {"sessions", "contentSessionId"} of session,
-- {"file"} of file.
CREATE FUNCTION commonplace.choose_erased(p_team_id uuid, p_project_id uuid, p_actor text, p_what text, p_selection jsonb,
    OUT memories uuid[], OUT events uuid[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    given uuid[] := ARRAY(SELECT jsonb_array_elements_text(coalesce(p_selection -> 'memories', p_selection -> 'sessions'))::uuid);
    file text := p_selection ->> 'file';
BEGIN
    IF p_what = 'file' THEN
        memories := ARRAY(SELECT m.id FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.project_id = p_project_id
            AND (m.visibility = 'team' OR m.owner_actor = p_actor) AND commonplace.tells_of_file(m.metadata, file));
        events := ARRAY(SELECT e.id FROM commonplace.events e WHERE e.team_id = p_team_id AND e.project_id = p_project_id
            AND commonplace.tells_of_file(e.payload, file) AND commonplace.may_see_event(p_team_id, p_actor, e.id, e.actor));
    ELSIF p_what = 'session' THEN
        events := ARRAY(SELECT e.id FROM commonplace.events e WHERE e.team_id = p_team_id AND e.session_id = ANY (given)
                AND commonplace.may_see_event(p_team_id, p_actor, e.id, e.actor)
            UNION ALL SELECT e.id FROM commonplace.events e WHERE e.team_id = p_team_id AND e.project_id = p_project_id
                AND e.session_id IS NULL AND e.content_session_id = p_selection ->> 'contentSessionId'
                AND commonplace.may_see_event(p_team_id, p_actor, e.id, e.actor));
        memories := ARRAY(SELECT m.id FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.session_id = ANY (given)
                AND (m.visibility = 'team' OR m.owner_actor = p_actor)
            UNION SELECT unnest(commonplace.made_of(p_team_id, p_actor, events)));
    ELSE
        memories := given;
        events := '{}';
    END IF;
    events := ARRAY(SELECT unnest(events) UNION SELECT s.event_id FROM unnest(memories) AS gone (id)
        JOIN commonplace.memory_sources s ON s.team_id = p_team_id AND s.memory_id = gone.id WHERE s.event_id IS NOT NULL);
    memories := ARRAY(SELECT unnest(memories) UNION SELECT unnest(commonplace.summaries_of(p_team_id, p_actor, memories, events)));
END
$$;

-- Gives back groups of which something was erased: whoever works on one may write nothing of it any more, what it set aside
-- counts as spent, what the next call would have been told is forgotten, and what remains is claimed again. The caller holds them.
CREATE FUNCTION commonplace.settle_groups(p_team_id uuid, p_project_id uuid, p_keys text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    left_over text;
BEGIN
    PERFORM commonplace.end_reservation(p_team_id, p_project_id, session_key, false) FROM commonplace.reservations
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = ANY (p_keys);
    DELETE FROM commonplace.job_groups g WHERE g.team_id = p_team_id AND g.project_id = p_project_id AND g.session_key = ANY (p_keys)
        AND (SELECT true FROM commonplace.jobs j WHERE j.team_id = p_team_id AND j.project_id = p_project_id
            AND j.session_key = g.session_key LIMIT 1) IS NULL;
    FOR left_over IN
        UPDATE commonplace.job_groups SET lease_token = lease_token + 1, state = '{}', state_at = NULL
        WHERE team_id = p_team_id AND project_id = p_project_id AND session_key = ANY (p_keys) RETURNING session_key
    LOOP
        PERFORM commonplace.hand_back(p_team_id, p_project_id, left_over);
        PERFORM commonplace.let_go(p_team_id, p_project_id, left_over, NULL);
    END LOOP;
END
$$;

-- Erases the jobs, and wakes those who wait for one. The caller holds their groups.
CREATE FUNCTION commonplace.erase_jobs(p_team_id uuid, p_jobs uuid[]) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    gone integer;
BEGIN
    PERFORM pg_notify('commonplace_jobs', id::text) FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (p_jobs) AND awaited
        AND status IN ('queued', 'processing');
    DELETE FROM commonplace.jobs WHERE team_id = p_team_id AND id = ANY (p_jobs);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

-- Adds figures to figures.
CREATE FUNCTION commonplace.add_counts(p_known jsonb, p_more jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_object_agg(key, total), '{}') FROM (
    SELECT key, sum(value::bigint) AS total FROM (
        SELECT * FROM jsonb_each_text(p_known) UNION ALL SELECT * FROM jsonb_each_text(p_more)) AS figure (key, value)
    GROUP BY key) AS summed);

-- Erases memories and events of one project with all that hangs on them: sources, jobs, the summaries that may repeat them, what
-- their sessions' next calls would have been told, and the content of audit rows. Memories that were made of the events
-- meanwhile go where the selection means them; others lose the link. Returns figures for add_counts.
CREATE FUNCTION commonplace.erase_rows(p_erasure commonplace.erasures, p_memories uuid[], p_events uuid[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '100ms' AS $$
DECLARE
    team uuid := p_erasure.team_id;
    project uuid := p_erasure.project_id;
    viewer text := CASE WHEN p_erasure.what <> 'project' THEN p_erasure.actor END;
    touched text[];
    meanwhile uuid[] := '{}';
    summaries uuid[];
    doomed uuid[];
    doomed_jobs uuid[];
    counts jsonb;
    number_gone bigint;
BEGIN
    touched := ARRAY(
        SELECT session_key FROM commonplace.jobs WHERE team_id = team AND event_id = ANY (p_events)
        UNION SELECT j.session_key FROM commonplace.memories m JOIN commonplace.jobs j ON j.team_id = team AND j.id = m.job_id
            WHERE m.team_id = team AND m.id = ANY (p_memories) AND viewer IS NOT NULL
        UNION SELECT commonplace.session_key(NULL, session_id, NULL, NULL, actor) FROM commonplace.events
            WHERE team_id = team AND id = ANY (p_events) AND session_id IS NOT NULL
        UNION SELECT commonplace.session_key(NULL, session_id, NULL, NULL, owner_actor) FROM commonplace.memories
            WHERE team_id = team AND id = ANY (p_memories) AND session_id IS NOT NULL AND generation_key IS NOT NULL AND viewer IS NOT NULL);
    PERFORM FROM commonplace.job_groups WHERE team_id = team AND project_id = project AND session_key = ANY (touched)
        ORDER BY session_id, session_key FOR UPDATE;
    PERFORM FROM commonplace.events WHERE team_id = team AND id = ANY (p_events) ORDER BY id FOR UPDATE;
    -- From here on no worker writes of these events.
    IF p_erasure.what IN ('session', 'project') THEN
        meanwhile := commonplace.made_of(team, viewer, p_events);
    ELSIF p_erasure.what = 'file' THEN
        meanwhile := ARRAY(SELECT id FROM commonplace.memories WHERE team_id = team AND id = ANY (commonplace.made_of(team, viewer, p_events))
            AND commonplace.tells_of_file(metadata, p_erasure.selection ->> 'file'));
    END IF;
    summaries := commonplace.summaries_of(team, viewer, p_memories, p_events);
    doomed := ARRAY(SELECT unnest(p_memories || meanwhile || summaries) ORDER BY 1);
    doomed_jobs := ARRAY(
        SELECT id FROM commonplace.jobs WHERE team_id = team AND event_id = ANY (p_events)
        UNION SELECT j.id FROM commonplace.memories m JOIN commonplace.jobs j ON j.team_id = team AND j.id = m.job_id
            WHERE m.team_id = team AND m.id = ANY (doomed) AND j.source_type <> 'agent_event' AND viewer IS NOT NULL);
    counts := jsonb_build_object('summaries', (SELECT count(DISTINCT memory_id) FROM commonplace.memory_sources
        WHERE team_id = team AND memory_id = ANY (doomed) AND source_type = 'session_summary'));
    DELETE FROM commonplace.memory_sources WHERE team_id = team AND ctid = ANY (ARRAY(
        SELECT ctid FROM commonplace.memory_sources WHERE team_id = team AND memory_id = ANY (doomed)
        UNION SELECT ctid FROM commonplace.memory_sources WHERE team_id = team AND event_id = ANY (p_events)));
    GET DIAGNOSTICS number_gone = ROW_COUNT;
    counts := counts || jsonb_build_object('sources', number_gone);
    DELETE FROM commonplace.memories WHERE team_id = team AND id = ANY (doomed);
    GET DIAGNOSTICS number_gone = ROW_COUNT;
    counts := counts || jsonb_build_object('observations', number_gone, 'jobs', commonplace.erase_jobs(team, doomed_jobs));
    DELETE FROM commonplace.events WHERE team_id = team AND id = ANY (p_events);
    GET DIAGNOSTICS number_gone = ROW_COUNT;
    counts := counts || jsonb_build_object('agentEvents', number_gone);
    IF p_erasure.what = 'project' THEN
        -- Its groups have their turn after its events, its audit at the end: until then only what a worker could still use.
        UPDATE commonplace.job_groups SET lease_token = lease_token + 1, state = '{}', state_at = NULL WHERE team_id = team
            AND project_id = project AND session_key = ANY (touched) AND lease_until IS NULL AND state <> '{}';
        touched := ARRAY(SELECT session_key FROM commonplace.job_groups WHERE team_id = team AND project_id = project
            AND session_key = ANY (touched) AND lease_until IS NOT NULL);
    END IF;
    PERFORM commonplace.settle_groups(team, project, touched);
    RETURN counts || jsonb_build_object('auditRows', CASE WHEN p_erasure.what = 'project' THEN 0
        ELSE commonplace.blank_audit_v1(team, (doomed || p_events || doomed_jobs)::text[], false) END);
END
$$;

-- Erases what is left of groups: jobs about no event, such as summaries, and the groups themselves where nothing came later.
CREATE FUNCTION commonplace.erase_groups(p_erasure commonplace.erasures, p_keys text[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '100ms' AS $$
DECLARE
    doomed_jobs uuid[];
BEGIN
    PERFORM FROM commonplace.job_groups WHERE team_id = p_erasure.team_id AND project_id = p_erasure.project_id
        AND session_key = ANY (p_keys) ORDER BY session_id, session_key FOR UPDATE;
    doomed_jobs := ARRAY(SELECT id FROM commonplace.jobs WHERE team_id = p_erasure.team_id AND project_id = p_erasure.project_id
        AND session_key = ANY (p_keys) AND event_id IS NULL AND created_at <= p_erasure.created_at);
    PERFORM commonplace.erase_jobs(p_erasure.team_id, doomed_jobs);
    PERFORM commonplace.settle_groups(p_erasure.team_id, p_erasure.project_id, p_keys);
    RETURN jsonb_build_object('jobs', cardinality(doomed_jobs), 'auditRows', CASE WHEN p_erasure.what = 'project' THEN 0
        ELSE commonplace.blank_audit_v1(p_erasure.team_id, doomed_jobs::text[], false) END);
END
$$;

-- Erases sessions; of one that goes on, since events came later, what was said of it.
CREATE FUNCTION commonplace.erase_sessions(p_erasure commonplace.erasures, p_sessions uuid[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '100ms' AS $$
DECLARE
    team uuid := p_erasure.team_id;
    held uuid[];
BEGIN
    held := ARRAY(SELECT id FROM commonplace.sessions WHERE team_id = team AND id = ANY (p_sessions) ORDER BY id FOR UPDATE);
    DELETE FROM commonplace.sessions s WHERE s.team_id = team AND s.id = ANY (held)
        AND (SELECT true FROM commonplace.events e WHERE e.team_id = team AND e.session_id = s.id LIMIT 1) IS NULL
        AND (SELECT true FROM commonplace.jobs j WHERE j.team_id = team AND j.session_id = s.id LIMIT 1) IS NULL;
    UPDATE commonplace.sessions SET metadata = '{}', prompt_actor = NULL, updated_at = now() WHERE team_id = team AND id = ANY (held);
    RETURN jsonb_build_object('sessions', cardinality(held), 'auditRows', CASE WHEN p_erasure.what = 'project' THEN 0
        ELSE commonplace.blank_audit_v1(team, held::text[], false) END);
END
$$;

-- The next p_rows ids of a phase, and after which place the one after that begins: of a whole project in the order of the
-- table, else of what was written down, which is taken off the list.
CREATE FUNCTION commonplace.next_erased(p_erasure commonplace.erasures, p_rows integer, OUT ids text[], OUT last text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    team uuid := p_erasure.team_id;
    project uuid := p_erasure.project_id;
BEGIN
    IF p_erasure.phase = 'groups' THEN
        -- The groups of a session are so few, one an actor, that they go at once.
        SELECT array_agg(session_key ORDER BY session_key), max(session_key) INTO ids, last FROM (
            SELECT session_key FROM commonplace.job_groups WHERE team_id = team AND project_id = project AND p_erasure.what = 'project'
                AND session_key > coalesce(p_erasure.reached, '') ORDER BY session_key LIMIT p_rows) AS next;
        IF p_erasure.what <> 'project' THEN
            ids := ARRAY(SELECT g.session_key FROM commonplace.erasure_items i JOIN commonplace.job_groups g
                ON g.team_id = team AND g.project_id = project AND g.session_id = i.id
                WHERE i.team_id = team AND i.erasure_id = p_erasure.id AND i.kind = 'session');
            last := NULL;
        END IF;
    ELSIF p_erasure.what <> 'project' THEN
        WITH taken AS (
            DELETE FROM commonplace.erasure_items WHERE team_id = team AND erasure_id = p_erasure.id AND (kind, id) IN (
                SELECT kind, id FROM commonplace.erasure_items WHERE team_id = team AND erasure_id = p_erasure.id
                    AND kind = CASE p_erasure.phase WHEN 'memories' THEN 'memory' WHEN 'events' THEN 'event' ELSE 'session' END
                LIMIT p_rows) RETURNING id)
        SELECT array_agg(id::text) INTO ids FROM taken;
    ELSIF p_erasure.phase = 'memories' THEN
        SELECT array_agg(id::text), max(number)::text INTO ids, last FROM (
            SELECT id, number FROM commonplace.memories WHERE team_id = team AND project_id = project
                AND number > coalesce(p_erasure.reached::bigint, 0) AND number <= p_erasure.last_memory ORDER BY number LIMIT p_rows) AS next;
    ELSIF p_erasure.phase = 'events' THEN
        SELECT array_agg(id::text), max(number)::text INTO ids, last FROM (
            SELECT id, number FROM commonplace.events WHERE team_id = team AND project_id = project
                AND number > coalesce(p_erasure.reached::bigint, 0) AND number <= p_erasure.last_event ORDER BY number LIMIT p_rows) AS next;
    ELSE
        SELECT array_agg(id::text), (array_agg(id::text ORDER BY id DESC))[1] INTO ids, last FROM (
            SELECT id FROM commonplace.sessions WHERE team_id = team AND project_id = project
                AND id > coalesce(p_erasure.reached::uuid, '00000000-0000-0000-0000-000000000000') AND created_at <= p_erasure.created_at
            ORDER BY id LIMIT p_rows) AS next;
    END IF;
    ids := coalesce(ids, '{}');
END
$$;

-- Goes on with an erasure by about p_rows rows, in the time of one short transaction; whoever holds its lease calls this until
-- it is done. Returns {"outcome": going|done|lease_lost, "phase", "counts", "seconds": how long it held its rows}.
CREATE FUNCTION commonplace.erase_step_v1(p_team_id uuid, p_erasure_id uuid, p_lease_token bigint, p_rows integer, p_lease_seconds integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    e commonplace.erasures;
    ids text[];
    last text;
    swept jsonb;
    more jsonb;
    left_rows integer := p_rows;
    is_over boolean;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT * INTO e FROM commonplace.erasures WHERE team_id = p_team_id AND id = p_erasure_id FOR UPDATE;
    IF e.id IS NULL OR e.lease_token <> p_lease_token THEN
        RETURN jsonb_build_object('outcome', 'lease_lost', 'phase', NULL, 'counts', '{}'::jsonb, 'seconds', 0);
    END IF;
    WHILE e.phase <> 'done' AND left_rows > 0 LOOP
        IF e.phase = 'audit' THEN
            -- What is only read takes little.
            swept := commonplace.sweep_audit_v1(p_team_id, e.project_id, e.reached,
                CASE WHEN e.what = 'project' THEN e.created_at ELSE '-infinity' END, left_rows * 4);
            more := jsonb_build_object('auditRows', swept -> 'blanked');
            last := swept ->> 'reached';
            is_over := (swept ->> 'read')::integer < left_rows * 4;
            left_rows := left_rows - (swept ->> 'read')::integer / 4 - 1;
        ELSE
            SELECT n.ids, n.last INTO ids, last FROM commonplace.next_erased(e, left_rows) AS n;
            is_over := cardinality(ids) < left_rows;
            left_rows := left_rows - cardinality(ids);
            more := CASE WHEN ids = '{}' THEN '{}'::jsonb ELSE CASE e.phase
                WHEN 'memories' THEN commonplace.erase_rows(e, ids::uuid[], '{}')
                WHEN 'events' THEN commonplace.erase_rows(e, '{}', ids::uuid[])
                WHEN 'groups' THEN commonplace.erase_groups(e, ids)
                ELSE commonplace.erase_sessions(e, ids::uuid[]) END END;
        END IF;
        e.counts := commonplace.add_counts(e.counts, more);
        e.reached := last;
        IF is_over THEN
            -- The rows of another phase take another time.
            left_rows := least(left_rows, 50);
            e.phase := CASE WHEN e.phase = 'memories' THEN 'events' WHEN e.phase = 'events' AND e.what IN ('session', 'project') THEN 'groups'
                WHEN e.phase = 'groups' THEN 'sessions' WHEN e.phase = 'audit' THEN 'done' ELSE 'audit' END;
            -- Reads that ended while this went on may name what is gone. Their row is the last that they write.
            e.reached := CASE WHEN e.phase = 'audit' THEN
                CASE WHEN e.what = 'project' THEN '-infinity|0' ELSE e.created_at - interval '0.1 s' || '|0' END END;
        END IF;
    END LOOP;
    UPDATE commonplace.erasures SET phase = e.phase, reached = e.reached, counts = e.counts, updated_at = clock_timestamp(),
        selection = CASE WHEN e.phase = 'done' THEN '{}' ELSE selection END,
        lease_until = CASE WHEN e.phase <> 'done' THEN clock_timestamp() + make_interval(secs => p_lease_seconds) END
    WHERE team_id = p_team_id AND id = e.id AND lease_until IS NOT NULL;
    IF FOUND AND e.phase = 'done' THEN
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
        VALUES (p_team_id, e.project_id, e.key_id, e.actor, e.request_id, e.action,
            CASE e.action WHEN 'observation.deleted' THEN 'observation' WHEN 'project.memory_purged' THEN 'project' ELSE 'erasure' END,
            CASE e.action WHEN 'observation.deleted' THEN e.resource_id WHEN 'project.memory_purged' THEN e.project_id ELSE e.id END,
            jsonb_build_object('requestId', e.request_id, 'via', e.via, 'what', e.what, 'erasureId', e.id, 'counts', e.counts));
    END IF;
    RETURN jsonb_build_object('outcome', CASE e.phase WHEN 'done' THEN 'done' ELSE 'going' END, 'phase', e.phase, 'counts', e.counts,
        'seconds', extract(epoch FROM clock_timestamp() - statement_timestamp()));
END
$$;

-- What an erasure of that would erase: figures as in erase_rows. Takes no lock.
CREATE FUNCTION commonplace.foresee_erasure(p_erasure commonplace.erasures, p_memories uuid[], p_events uuid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    team uuid := p_erasure.team_id;
    project uuid := p_erasure.project_id;
    sessions uuid[] := ARRAY(SELECT jsonb_array_elements_text(p_erasure.selection -> 'sessions')::uuid);
    jobs uuid[];
BEGIN
    IF p_erasure.what = 'project' THEN
        RETURN jsonb_build_object(
            'observations', (SELECT count(*) FROM commonplace.memories WHERE team_id = team AND project_id = project),
            'agentEvents', (SELECT count(*) FROM commonplace.events WHERE team_id = team AND project_id = project),
            'sessions', (SELECT count(*) FROM commonplace.sessions WHERE team_id = team AND project_id = project),
            'jobs', (SELECT count(*) FROM commonplace.jobs WHERE team_id = team AND project_id = project),
            'sources', (SELECT count(*) FROM commonplace.memory_sources s JOIN commonplace.memories m ON m.team_id = team AND m.id = s.memory_id
                WHERE s.team_id = team AND m.project_id = project),
            'summaries', (SELECT count(DISTINCT m.id) FROM commonplace.memory_sources s JOIN commonplace.memories m ON m.team_id = team
                AND m.id = s.memory_id WHERE s.team_id = team AND m.project_id = project AND s.source_type = 'session_summary'),
            'auditRows', (SELECT count(*) FROM commonplace.audit_log WHERE team_id = team AND project_id = project
                AND commonplace.is_about_memory(resource_type) AND NOT details @> '{"erased": true}'));
    END IF;
    jobs := ARRAY(
        SELECT id FROM commonplace.jobs WHERE team_id = team AND event_id = ANY (p_events)
        UNION SELECT j.id FROM commonplace.memories m JOIN commonplace.jobs j ON j.team_id = team AND j.id = m.job_id
            WHERE m.team_id = team AND m.id = ANY (p_memories) AND j.source_type <> 'agent_event'
        UNION SELECT id FROM commonplace.jobs WHERE team_id = team AND session_id = ANY (sessions) AND event_id IS NULL);
    RETURN jsonb_build_object('observations', cardinality(p_memories), 'agentEvents', cardinality(p_events), 'sessions', cardinality(sessions),
        'jobs', cardinality(jobs),
        'sources', (SELECT count(*) FROM commonplace.memory_sources WHERE team_id = team AND (memory_id = ANY (p_memories) OR event_id = ANY (p_events))),
        'summaries', (SELECT count(DISTINCT memory_id) FROM commonplace.memory_sources WHERE team_id = team AND memory_id = ANY (p_memories)
            AND source_type = 'session_summary'),
        'auditRows', commonplace.blank_audit_v1(team, (p_memories || p_events || jobs || sessions)::text[], true));
END
$$;

-- Writes down what is to be erased, of what the actor sees, up to what there is now; or says what that would be.
-- p_asked: {"id": of the erasure, "what": memory|query|session|file|project, "value": id, words, id or contentSessionId, path, or null,
--   "limit": of query, "project": id or name or null, "isDry", "action": of the audit row, "via", "leaseSeconds"}.
-- Returns {"erasureId", "leaseToken", "projectId", "counts": if dry, "memories": [{"id", "title", "kind"}], the 100 newest}, or NULL
-- for no such memory, session or project. CM100: the session or the project is not the key's.
CREATE FUNCTION commonplace.begin_erasure_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text, p_asked jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    e commonplace.erasures;
    value text := p_asked ->> 'value';
    chosen record;
    listed jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    e.id := (p_asked ->> 'id')::uuid;
    e.team_id := p_team_id;
    e.actor := p_actor;
    e.what := p_asked ->> 'what';
    e.resource_id := CASE WHEN e.what IN ('memory', 'session') THEN commonplace.uuid_or_null(value) END;
    IF e.what = 'memory' THEN
        SELECT project_id INTO e.project_id FROM commonplace.memories WHERE team_id = p_team_id AND id = e.resource_id
            AND (visibility = 'team' OR owner_actor = p_actor) AND project_id = coalesce(p_key_project, project_id);
    ELSIF e.what = 'session' THEN
        SELECT project_id INTO e.project_id FROM commonplace.sessions WHERE team_id = p_team_id AND id = e.resource_id;
        IF e.project_id <> p_key_project THEN
            RAISE EXCEPTION 'API key is scoped to a different project' USING ERRCODE = 'CM100';
        ELSIF e.project_id IS NULL THEN
            e.resource_id := NULL;
        END IF;
    END IF;
    IF e.project_id IS NOT NULL AND p_asked ->> 'project' IS NOT NULL AND e.project_id IS DISTINCT FROM
            commonplace.resolve_project(p_team_id, p_key_project, p_asked ->> 'project', 0) THEN
        RETURN NULL;
    ELSIF e.project_id IS NULL AND e.what <> 'memory' THEN
        e.project_id := commonplace.resolve_project(p_team_id, p_key_project, p_asked ->> 'project', 0);
    END IF;
    IF e.project_id IS NULL THEN
        RETURN NULL;
    END IF;
    e.selection := CASE e.what
        WHEN 'memory' THEN jsonb_build_object('memories', jsonb_build_array(e.resource_id))
        WHEN 'query' THEN jsonb_build_object('memories', (SELECT coalesce(jsonb_agg(memory_id), '[]')
            FROM commonplace.ranked_memories(p_team_id, e.project_id, p_actor, value, (p_asked ->> 'limit')::integer, NULL)))
        WHEN 'file' THEN jsonb_build_object('file', value)
        WHEN 'session' THEN CASE WHEN e.resource_id IS NOT NULL THEN jsonb_build_object('sessions', jsonb_build_array(e.resource_id))
            ELSE jsonb_build_object('contentSessionId', value, 'sessions', (SELECT coalesce(jsonb_agg(id), '[]') FROM commonplace.sessions
                WHERE team_id = p_team_id AND project_id = e.project_id AND content_session_id = value)) END
        ELSE '{}' END;
    SELECT coalesce(max(number), 0) INTO e.last_event FROM commonplace.events WHERE team_id = p_team_id AND project_id = e.project_id;
    SELECT coalesce(max(number), 0) INTO e.last_memory FROM commonplace.memories WHERE team_id = p_team_id AND project_id = e.project_id;
    SELECT '{}'::uuid[] AS memories, '{}'::uuid[] AS events INTO chosen;
    IF e.what <> 'project' THEN
        SELECT * INTO chosen FROM commonplace.choose_erased(p_team_id, e.project_id, p_actor, e.what, e.selection);
        IF e.what = 'session' AND e.selection -> 'sessions' = '[]' AND chosen.events = '{}' THEN
            RETURN NULL;
        END IF;
        -- A session in which others captured what the actor may not see goes on without what the actor sees.
        e.selection := e.selection || CASE e.what WHEN 'session' THEN jsonb_build_object('sessions', (
            SELECT coalesce(jsonb_agg(given), '[]') FROM jsonb_array_elements_text(e.selection -> 'sessions') AS given
            WHERE NOT EXISTS (SELECT FROM commonplace.events v WHERE v.team_id = p_team_id AND v.session_id = given::uuid
                AND NOT commonplace.may_see_event(p_team_id, p_actor, v.id, v.actor)))) ELSE '{}' END;
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'title', title, 'kind', kind) ORDER BY number DESC), '[]') INTO listed FROM (
        (SELECT id, title, kind, number FROM commonplace.memories WHERE team_id = p_team_id AND project_id = e.project_id
            AND e.what = 'project' AND (visibility = 'team' OR owner_actor = p_actor) ORDER BY number DESC LIMIT 100)
        UNION ALL
        (SELECT id, title, kind, number FROM commonplace.memories WHERE team_id = p_team_id AND id = ANY (chosen.memories)
            ORDER BY number DESC LIMIT 100)) AS newest;
    IF (p_asked ->> 'isDry')::boolean THEN
        e.counts := commonplace.foresee_erasure(e, chosen.memories, chosen.events);
        INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
        VALUES (p_team_id, e.project_id, p_key_id, p_actor, p_request_id, 'memory.forget_previewed', 'erasure',
            jsonb_build_object('requestId', p_request_id, 'via', p_asked -> 'via', 'what', e.what, 'counts', e.counts));
        RETURN jsonb_build_object('erasureId', NULL, 'leaseToken', NULL, 'projectId', e.project_id, 'counts', e.counts, 'memories', listed);
    END IF;
    INSERT INTO commonplace.erasures (id, team_id, project_id, key_id, actor, request_id, via, action, what, resource_id, selection,
        last_event, last_memory, lease_until)
    VALUES (e.id, p_team_id, e.project_id, p_key_id, p_actor, p_request_id, p_asked ->> 'via', p_asked ->> 'action', e.what, e.resource_id,
        CASE e.what WHEN 'file' THEN e.selection ELSE '{}' END, e.last_event, e.last_memory,
        now() + make_interval(secs => (p_asked ->> 'leaseSeconds')::integer));
    INSERT INTO commonplace.erasure_items (team_id, erasure_id, kind, id)
    SELECT p_team_id, e.id, 'memory', unnest(chosen.memories)
    UNION ALL SELECT p_team_id, e.id, 'event', unnest(chosen.events)
    UNION ALL SELECT p_team_id, e.id, 'session', jsonb_array_elements_text(e.selection -> 'sessions')::uuid;
    RETURN jsonb_build_object('erasureId', e.id, 'leaseToken', 1, 'projectId', e.project_id, 'memories', listed);
END
$$;

-- An erasure that nobody goes on with, now leased to the caller: {"teamId", "erasureId", "leaseToken"}; NULL for none.
CREATE FUNCTION commonplace.resume_erasure_v1(p_lease_seconds integer) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE commonplace.erasures SET lease_token = lease_token + 1, lease_until = now() + make_interval(secs => p_lease_seconds)
    WHERE id = (SELECT id FROM commonplace.erasures WHERE phase <> 'done' AND lease_until < now()
        ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING jsonb_build_object('teamId', team_id, 'erasureId', id, 'leaseToken', lease_token)
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.blank_audit_v1(uuid, text[], boolean),
    commonplace.is_about_memory(text),
    commonplace.sweep_audit_v1(uuid, uuid, text, timestamptz, integer),
    commonplace.is_file(text, text),
    commonplace.tells_of_file(jsonb, text),
    commonplace.summaries_of(uuid, text, uuid[], uuid[]),
    commonplace.made_of(uuid, text, uuid[]),
    commonplace.choose_erased(uuid, uuid, text, text, jsonb),
    commonplace.settle_groups(uuid, uuid, text[]),
    commonplace.erase_jobs(uuid, uuid[]),
    commonplace.add_counts(jsonb, jsonb),
    commonplace.erase_rows(commonplace.erasures, uuid[], uuid[]),
    commonplace.erase_groups(commonplace.erasures, text[]),
    commonplace.erase_sessions(commonplace.erasures, uuid[]),
    commonplace.next_erased(commonplace.erasures, integer),
    commonplace.erase_step_v1(uuid, uuid, bigint, integer, integer),
    commonplace.foresee_erasure(commonplace.erasures, uuid[], uuid[]),
    commonplace.begin_erasure_v1(uuid, uuid, uuid, text, text, jsonb),
    commonplace.resume_erasure_v1(integer)
TO commonplace_runtime;
