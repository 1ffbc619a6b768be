-- Every table, its rules, its row-level security and its grants.
-- Run as commonplace_owner. Core PostgreSQL 16 or newer, no extension.

GRANT USAGE ON SCHEMA commonplace TO commonplace_runtime, commonplace_operator, commonplace_admin;
ALTER DEFAULT PRIVILEGES IN SCHEMA commonplace REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- One row per operator installation (uid of kube-system + operator class): the newest leader's term.
CREATE TABLE commonplace.installations (
    installation text PRIMARY KEY CHECK (installation <> ''),
    term         bigint NOT NULL CHECK (term >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- Rows with an owner_uid belong to an operator's object; rows without one belong to people.
CREATE TABLE commonplace.teams (
    id                        uuid PRIMARY KEY,
    slug                      text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$' AND length(slug) <= 253),
    name                      text NOT NULL CHECK (name <> ''),
    default_visibility        text CHECK (default_visibility IN ('team', 'private')),
    generation_mode           text NOT NULL DEFAULT 'per-event'
                              CHECK (generation_mode IN ('per-event', 'debounce', 'end-of-session')),
    generation_window_seconds integer NOT NULL DEFAULT 60 CHECK (generation_window_seconds BETWEEN 1 AND 86400),
    event_retention_seconds   bigint CHECK (event_retention_seconds > 0),
    metadata                  jsonb NOT NULL DEFAULT '{}',
    detached_at               timestamptz,
    installation              text REFERENCES commonplace.installations,
    owner_uid                 text UNIQUE,
    generation                bigint NOT NULL DEFAULT 0,
    term                      bigint NOT NULL DEFAULT 0,
    created_at                timestamptz NOT NULL DEFAULT now(),
    updated_at                timestamptz NOT NULL DEFAULT now(),
    CHECK (owner_uid IS NULL OR installation IS NOT NULL)
);
COMMENT ON COLUMN commonplace.teams.detached_at IS 'Its MemoryTeam is gone and its data was retained: no key of it authenticates.';

CREATE TABLE commonplace.projects (
    id           uuid PRIMARY KEY,
    team_id      uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    name         text NOT NULL CHECK (name <> '' AND length(name) <= 200),
    display_name text,
    metadata     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (team_id, name),
    UNIQUE (team_id, id)
);

CREATE TABLE commonplace.team_members (
    team_id    uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    actor      text NOT NULL CHECK (actor <> ''),
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, actor)
);

-- One row per token ever issued; the token itself is nowhere in the database.
CREATE TABLE commonplace.api_keys (
    id            uuid PRIMARY KEY,
    team_id       uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    project_id    uuid,
    name          text NOT NULL CHECK (name <> ''),
    actor         text NOT NULL CHECK (actor <> ''),
    scopes        text[] NOT NULL,
    token_id      text,
    token_hash    text NOT NULL UNIQUE CHECK (token_hash ~ '^[0-9a-f]{64}$'),
    state         text NOT NULL CHECK (state IN ('unpublished', 'published', 'grace', 'revoked')),
    revision      integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
    rotation_mark text,
    expires_at    timestamptz,
    grace_until   timestamptz,
    published_at  timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    installation  text REFERENCES commonplace.installations,
    owner_uid     text,
    generation    bigint NOT NULL DEFAULT 0,
    term          bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE,
    UNIQUE (owner_uid, revision),
    CHECK (owner_uid IS NULL OR installation IS NOT NULL),
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL)),
    CHECK (state <> 'grace' OR grace_until IS NOT NULL)
);
-- At most two published keys (the current one and one in grace) and one unpublished per ApiKey object.
CREATE UNIQUE INDEX api_keys_one_per_live_state ON commonplace.api_keys (owner_uid, state)
    WHERE owner_uid IS NOT NULL AND state <> 'revoked';
CREATE INDEX api_keys_of_team ON commonplace.api_keys (team_id, created_at);

-- What each Quota object asks for. NULL means: no such limit.
CREATE TABLE commonplace.quotas (
    id                          uuid PRIMARY KEY,
    team_id                     uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    name                        text NOT NULL,
    enforcement                 text NOT NULL CHECK (enforcement IN ('Enforce', 'Warn')),
    requests_per_minute         bigint CHECK (requests_per_minute >= 0),
    requests_per_month          bigint CHECK (requests_per_month >= 0),
    tokens_per_month            bigint CHECK (tokens_per_month >= 0),
    cost_per_month_usd          numeric CHECK (cost_per_month_usd >= 0),
    memories                    bigint CHECK (memories >= 0),
    storage_bytes               bigint CHECK (storage_bytes >= 0),
    api_keys                    bigint CHECK (api_keys >= 0),
    workers                     bigint CHECK (workers >= 0),
    soft_tokens_per_month       bigint CHECK (soft_tokens_per_month >= 0),
    soft_cost_per_month_usd     numeric CHECK (soft_cost_per_month_usd >= 0),
    installation                text NOT NULL REFERENCES commonplace.installations,
    owner_uid                   text NOT NULL UNIQUE,
    generation                  bigint NOT NULL DEFAULT 0,
    term                        bigint NOT NULL DEFAULT 0,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quotas_of_team ON commonplace.quotas (team_id);

-- The minimum of each limit over a team's enforced Quotas, kept by put_quota_v1 and delete_quota_v1;
-- read by every request and every claim.
CREATE TABLE commonplace.team_limits (
    team_id                 uuid PRIMARY KEY REFERENCES commonplace.teams ON DELETE CASCADE,
    requests_per_minute     bigint,
    requests_per_month      bigint,
    tokens_per_month        bigint,
    cost_per_month_usd      numeric,
    memories                bigint,
    storage_bytes           bigint,
    api_keys                bigint,
    workers                 bigint,
    soft_tokens_per_month   bigint,
    soft_cost_per_month_usd numeric,
    metered                 boolean NOT NULL DEFAULT false,
    updated_at              timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN commonplace.team_limits.metered IS 'Some Quota names a monthly figure, enforced or not: usage is counted.';

-- Requests of one key in one minute (the rate limit). Old windows are pruned by housekeeping_v1.
CREATE TABLE commonplace.rate_counters (
    team_id      uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    key_id       uuid NOT NULL REFERENCES commonplace.api_keys ON DELETE CASCADE,
    window_start timestamptz NOT NULL,
    requests     bigint NOT NULL,
    PRIMARY KEY (key_id, window_start)
);

-- Sums per UTC month: kind request, observation, tokens (in + out), input_tokens, output_tokens, cost_microusd.
CREATE TABLE commonplace.usage_counters (
    team_id    uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    project_id uuid,
    key_id     uuid,
    month      date NOT NULL CHECK (extract(day FROM month) = 1),
    kind       text NOT NULL,
    model      text NOT NULL DEFAULT '',
    quantity   bigint NOT NULL CHECK (quantity >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (team_id, month, kind, project_id, key_id, model)
);

CREATE TABLE commonplace.sessions (
    id                  uuid PRIMARY KEY,
    team_id             uuid NOT NULL,
    project_id          uuid NOT NULL,
    external_session_id text,
    content_session_id  text,
    agent_id            text,
    agent_type          text,
    platform_source     text,
    generation_status   text NOT NULL DEFAULT 'idle',
    metadata            jsonb NOT NULL DEFAULT '{}',
    started_at          timestamptz NOT NULL DEFAULT now(),
    ended_at            timestamptz,
    last_generated_at   timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE,
    UNIQUE (team_id, id)
);
CREATE UNIQUE INDEX sessions_external ON commonplace.sessions (team_id, project_id, external_session_id, platform_source)
    NULLS NOT DISTINCT WHERE external_session_id IS NOT NULL;
CREATE INDEX sessions_content ON commonplace.sessions (team_id, project_id, content_session_id, started_at DESC)
    WHERE content_session_id IS NOT NULL;

CREATE TABLE commonplace.events (
    id                 uuid PRIMARY KEY,
    number             bigint GENERATED ALWAYS AS IDENTITY,
    team_id            uuid NOT NULL,
    project_id         uuid NOT NULL,
    session_id         uuid,
    content_session_id text,
    source_adapter     text NOT NULL,
    source_event_id    text,
    idempotency_key    text NOT NULL,
    event_type         text NOT NULL,
    platform_source    text,
    actor              text NOT NULL,
    key_id             uuid,
    payload            jsonb NOT NULL,
    metadata           jsonb NOT NULL DEFAULT '{}',
    private_parts      integer NOT NULL DEFAULT 0 CHECK (private_parts >= 0),
    redacted_secrets   integer NOT NULL DEFAULT 0 CHECK (redacted_secrets >= 0),
    occurred_at        timestamptz NOT NULL,
    received_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, session_id) REFERENCES commonplace.sessions (team_id, id) ON DELETE SET NULL (session_id),
    UNIQUE (team_id, idempotency_key),
    UNIQUE (team_id, id)
);
COMMENT ON COLUMN commonplace.events.number IS 'Order of arrival; times alone are ambiguous inside a batch.';
CREATE INDEX events_of_project ON commonplace.events (team_id, project_id, number);

-- The queued work of one session: claimed and leased as a whole, so order within a session holds.
-- available_at: when a worker may claim it; NULL when nothing waits. While leased it is the lease's end,
-- so the claim is one index scan and a dead worker's group comes back by itself.
CREATE TABLE commonplace.job_groups (
    team_id      uuid NOT NULL,
    project_id   uuid NOT NULL,
    session_key  text NOT NULL,
    available_at timestamptz,
    lease_until  timestamptz,
    leased_by    text,
    lease_token  bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, project_id, session_key),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN commonplace.job_groups.lease_token IS 'Fencing: grows with each claim; results are written only under the newest.';
CREATE INDEX job_groups_available ON commonplace.job_groups (available_at) WHERE available_at IS NOT NULL;

CREATE TABLE commonplace.jobs (
    id           uuid PRIMARY KEY,
    number       bigint GENERATED ALWAYS AS IDENTITY,
    team_id      uuid NOT NULL,
    project_id   uuid NOT NULL,
    session_key  text NOT NULL,
    session_id   uuid,
    event_id     uuid,
    source_type  text NOT NULL CHECK (source_type IN ('agent_event', 'session_summary', 'observation_reindex')),
    source_id    uuid NOT NULL,
    job_type     text NOT NULL,
    status       text NOT NULL DEFAULT 'queued'
                 CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    attempts     integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    max_attempts integer NOT NULL DEFAULT 3 CHECK (max_attempts >= 1),
    run_after    timestamptz NOT NULL DEFAULT now(),
    locked_at    timestamptz,
    locked_by    text,
    completed_at timestamptz,
    failed_at    timestamptz,
    cancelled_at timestamptz,
    last_error   jsonb,
    key_id       uuid,
    actor        text NOT NULL,
    request_id   text,
    payload      jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (team_id, project_id, session_key)
        REFERENCES commonplace.job_groups (team_id, project_id, session_key) ON DELETE CASCADE,
    FOREIGN KEY (team_id, event_id) REFERENCES commonplace.events (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, session_id) REFERENCES commonplace.sessions (team_id, id) ON DELETE CASCADE,
    UNIQUE (team_id, project_id, source_type, source_id, job_type),
    UNIQUE (team_id, id),
    CHECK ((source_type = 'agent_event') = (event_id IS NOT NULL)),
    CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
    CHECK ((status = 'failed') = (failed_at IS NOT NULL)),
    CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL)),
    CHECK ((status = 'processing') = (locked_by IS NOT NULL))
);
CREATE INDEX jobs_open ON commonplace.jobs (team_id, project_id, session_key, number)
    WHERE status IN ('queued', 'processing');
CREATE INDEX jobs_of_project ON commonplace.jobs (team_id, project_id, number DESC);

-- The parts of fooBar, foo_bar and path/to/file.ts as words of their own.
CREATE FUNCTION commonplace.split_identifiers(words text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(translate(words, '_./\:-@#', '         '), '([[:lower:][:digit:]])([[:upper:]])', '\1 \2', 'g');

-- English stems of what a memory says; simple and temporary, behind the search service.
-- Bounded, because a tsvector holds 1 MB at most and content may be larger.
CREATE FUNCTION commonplace.memory_lexemes(title text, keywords text[], tags text[], content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN setweight(to_tsvector('pg_catalog.english', left(coalesce(title, ''), 2000)), 'A')
    || setweight(to_tsvector('pg_catalog.english', left(array_to_string(keywords || tags, ' '), 4000)), 'B')
    || setweight(to_tsvector('pg_catalog.english', left(content, 60000)), 'C')
    || setweight(to_tsvector('pg_catalog.english', commonplace.split_identifiers(left(coalesce(title, '') || ' ' || content, 60000))), 'D');

-- What claude-mem calls an observation and claude-memory-mcp calls a memory is one row here.
CREATE TABLE commonplace.memories (
    id             uuid PRIMARY KEY,
    number         integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    team_id        uuid NOT NULL,
    project_id     uuid NOT NULL,
    session_id     uuid,
    owner_actor    text NOT NULL CHECK (owner_actor <> ''),
    visibility     text NOT NULL CHECK (visibility IN ('team', 'private')),
    kind           text NOT NULL DEFAULT 'observation' CHECK (kind <> ''),
    title          text,
    content        text NOT NULL,
    metadata       jsonb NOT NULL DEFAULT '{}',
    tags           text[] NOT NULL DEFAULT '{}',
    keywords       text[] NOT NULL DEFAULT '{}',
    importance     real NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    sealed_secret  bytea,
    valid_from     timestamptz,
    valid_to       timestamptz,
    superseded_by  uuid,
    generation_key text,
    job_id         uuid,
    author_key_id  uuid,
    model          text,
    lexemes        tsvector GENERATED ALWAYS AS (commonplace.memory_lexemes(title, keywords, tags, content)) STORED,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (team_id, project_id) REFERENCES commonplace.projects (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, session_id) REFERENCES commonplace.sessions (team_id, id) ON DELETE SET NULL (session_id),
    FOREIGN KEY (team_id, job_id) REFERENCES commonplace.jobs (team_id, id) ON DELETE SET NULL (job_id),
    UNIQUE (team_id, id),
    UNIQUE (team_id, generation_key),
    FOREIGN KEY (team_id, superseded_by) REFERENCES commonplace.memories (team_id, id) ON DELETE SET NULL (superseded_by)
);
COMMENT ON COLUMN commonplace.memories.number IS 'The id on the claude-memory-mcp wire.';
CREATE INDEX memories_newest ON commonplace.memories (team_id, project_id, number DESC);

-- Which raw events (or other sources) a memory was made from.
CREATE TABLE commonplace.memory_sources (
    memory_id   uuid NOT NULL,
    team_id     uuid NOT NULL,
    source_type text NOT NULL CHECK (source_type IN ('agent_event', 'session_summary', 'observation_reindex', 'manual')),
    source_id   uuid NOT NULL,
    event_id    uuid,
    job_id      uuid,
    metadata    jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (memory_id, source_type, source_id),
    FOREIGN KEY (team_id, memory_id) REFERENCES commonplace.memories (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, event_id) REFERENCES commonplace.events (team_id, id) ON DELETE CASCADE,
    FOREIGN KEY (team_id, job_id) REFERENCES commonplace.jobs (team_id, id) ON DELETE SET NULL (job_id)
);
CREATE INDEX memory_sources_of_event ON commonplace.memory_sources (team_id, event_id);

CREATE TABLE commonplace.audit_log (
    number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    team_id       uuid NOT NULL REFERENCES commonplace.teams ON DELETE CASCADE,
    project_id    uuid,
    key_id        uuid,
    actor         text,
    request_id    text,
    action        text NOT NULL,
    resource_type text NOT NULL,
    resource_id   text,
    details       jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_log_of_team ON commonplace.audit_log (team_id, number DESC);

-- Row-level security, forced: the second of the two places that hold tenancy.
-- The team is set per transaction; `(SELECT …)` makes it one evaluation a statement, not one a row.
DO $$
DECLARE
    tenant_table text;
    tenant_column text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['teams', 'projects', 'team_members', 'api_keys', 'quotas', 'team_limits',
        'rate_counters', 'usage_counters', 'sessions', 'events', 'job_groups', 'jobs', 'memories', 'memory_sources', 'audit_log']
    LOOP
        tenant_column := CASE tenant_table WHEN 'teams' THEN 'id' ELSE 'team_id' END;
        EXECUTE format('ALTER TABLE commonplace.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY team_only ON commonplace.%I TO commonplace_runtime '
            'USING (%I = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid)) '
            'WITH CHECK (%I = (SELECT nullif(current_setting(''app.team_id'', true), '''')::uuid))',
            tenant_table, tenant_column, tenant_column);
        EXECUTE format('CREATE POLICY owner_all ON commonplace.%I TO commonplace_owner USING (true) WITH CHECK (true)', tenant_table);
    END LOOP;
END
$$;

GRANT SELECT ON commonplace.teams, commonplace.projects, commonplace.team_members, commonplace.team_limits TO commonplace_runtime;
GRANT SELECT, INSERT, UPDATE ON commonplace.api_keys, commonplace.usage_counters TO commonplace_runtime;
GRANT SELECT, INSERT ON commonplace.audit_log TO commonplace_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON commonplace.sessions, commonplace.events, commonplace.job_groups,
    commonplace.jobs, commonplace.memories, commonplace.memory_sources TO commonplace_runtime;

-- The number of the newest migration: what the operator checks before it writes.
CREATE FUNCTION commonplace.schema_version_v1() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT max(version) FROM commonplace.schema_migrations';
GRANT EXECUTE ON FUNCTION commonplace.schema_version_v1() TO commonplace_runtime, commonplace_operator;
