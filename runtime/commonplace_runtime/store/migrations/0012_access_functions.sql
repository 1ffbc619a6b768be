-- Keys over HTTP, limits from the environment, and the audit as people read it.
-- Locks: api_keys, audit_log

ALTER TABLE commonplace.api_keys ADD COLUMN minted_by uuid;
COMMENT ON COLUMN commonplace.api_keys.minted_by IS 'The key that asked for this one over HTTP.';

-- As authenticate_v1, with the limits that this process brings from its environment: of two the stricter holds, NULL is none.
-- p_scopes: of which the key must have one; a request of any other is neither counted nor admitted.
-- A guard whose store fails, or is locked for more than a second, lets the request pass and is named in
-- "guardFailures": ["rate_limit|monthly_caps|metering SQLSTATE", …]. Without any limit nothing is written and nothing is guarded.
-- "month" is there where a monthly cap is.
CREATE FUNCTION commonplace.authenticate_v2(p_token_hash text, p_scopes text[], p_requests_per_minute bigint,
    p_requests_per_month bigint, p_tokens_per_month bigint, p_metered boolean)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known record;
    is_metered boolean;
    is_capped boolean;
    guard text;
    failed text[] := '{}';
    failures text[] := '{}';
    minute_start timestamptz := date_trunc('minute', now());
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    in_minute bigint;
    used_requests bigint;
    used_tokens bigint;
    minute_use jsonb;
    month_use jsonb;
BEGIN
    SELECT k.id, k.team_id, t.slug, k.project_id, p.name AS project, k.actor, k.scopes, k.last_used_at,
        least(l.requests_per_minute, p_requests_per_minute) AS requests_per_minute,
        least(l.requests_per_month, p_requests_per_month) AS requests_per_month,
        least(l.tokens_per_month, p_tokens_per_month) AS tokens_per_month, coalesce(l.metered, false) AS metered
    INTO known
    FROM commonplace.api_keys k
    JOIN commonplace.teams t ON t.id = k.team_id AND t.detached_at IS NULL
    LEFT JOIN commonplace.projects p ON p.id = k.project_id
    LEFT JOIN commonplace.team_limits l ON l.team_id = k.team_id
    WHERE k.token_hash = p_token_hash AND k.scopes && p_scopes
        AND (k.state IN ('unpublished', 'published') OR (k.state = 'grace' AND k.grace_until > now()))
        AND (k.expires_at IS NULL OR k.expires_at > now());
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    is_capped := known.requests_per_month IS NOT NULL OR known.tokens_per_month IS NOT NULL;
    is_metered := known.metered OR p_metered OR is_capped;
    IF is_metered OR known.requests_per_minute IS NOT NULL THEN
        PERFORM set_config('lock_timeout', '1s', true);
        -- One subtransaction for all guards, since each costs as much as its guard. The one that fails undoes what those before
        -- it counted, and it is all done again without it.
        LOOP
            BEGIN
                guard := 'rate_limit';
                IF known.requests_per_minute IS NOT NULL AND guard <> ALL (failed) THEN
                    INSERT INTO commonplace.rate_counters AS c (team_id, key_id, window_start, requests)
                    VALUES (known.team_id, known.id, minute_start, 1)
                    ON CONFLICT (key_id, window_start) DO UPDATE SET requests = c.requests + 1
                    RETURNING requests INTO in_minute;
                END IF;
                guard := 'monthly_caps';
                IF is_capped AND guard <> ALL (failed) THEN
                    SELECT coalesce(sum(quantity) FILTER (WHERE kind = 'request'), 0),
                        coalesce(sum(quantity) FILTER (WHERE kind = 'tokens'), 0) INTO used_requests, used_tokens
                    FROM commonplace.usage_counters
                    WHERE team_id = known.team_id AND usage_counters.month = this_month AND kind IN ('request', 'tokens');
                END IF;
                guard := 'metering';
                IF is_metered AND NOT failed && ARRAY['monthly_caps', 'metering']
                    AND (in_minute IS NULL OR in_minute <= known.requests_per_minute)
                    AND (known.requests_per_month IS NULL OR used_requests < known.requests_per_month) THEN
                    INSERT INTO commonplace.usage_counters AS u (team_id, project_id, key_id, month, kind, quantity)
                    VALUES (known.team_id, known.project_id, known.id, this_month, 'request', 1)
                    ON CONFLICT (team_id, month, kind, project_id, key_id, model, shard)
                        DO UPDATE SET quantity = u.quantity + 1, updated_at = now();
                END IF;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                failed := failed || guard;
                failures := failures || (guard || ' ' || SQLSTATE);
            END;
        END LOOP;
        IF in_minute IS NOT NULL THEN
            minute_use := jsonb_build_object('limit', known.requests_per_minute, 'requests', in_minute,
                'resetEpoch', extract(epoch FROM minute_start)::bigint + 60,
                'secondsLeft', greatest(1, ceil(extract(epoch FROM minute_start + interval '1 minute' - clock_timestamp()))::bigint));
        END IF;
        IF used_requests IS NOT NULL THEN
            month_use := jsonb_build_object('requests', used_requests, 'requestCap', known.requests_per_month,
                'tokens', used_tokens, 'tokenCap', known.tokens_per_month);
        END IF;
    END IF;
    IF known.last_used_at IS NULL OR known.last_used_at < now() - interval '1 minute' THEN
        -- SKIP LOCKED: a request never waits for the operator's lock on the key, nor for its twin.
        UPDATE commonplace.api_keys SET last_used_at = now() WHERE id = (
            SELECT id FROM commonplace.api_keys WHERE id = known.id FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    RETURN jsonb_build_object('keyId', known.id, 'teamId', known.team_id, 'teamSlug', known.slug, 'projectId', known.project_id,
        'project', known.project, 'actor', known.actor, 'scopes', to_jsonb(known.scopes), 'minute', minute_use, 'month', month_use,
        'guardFailures', to_jsonb(failures));
END
$$;

-- As budget_verdict, for a worker that brings a limit of tokens from its environment. Nobody lifts the hold when that one is
-- raised, so it is asked about again after an hour.
CREATE FUNCTION commonplace.stricter_verdict(p_team_id uuid, p_tokens_per_month bigint, p_spent_tokens bigint, p_spent_cost bigint,
    p_aside_tokens bigint, p_aside_cost bigint, p_at timestamptz, OUT refusal text, OUT until timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own commonplace.team_limits;
    joint commonplace.team_limits;
BEGIN
    SELECT * INTO own FROM commonplace.team_limits WHERE team_id = p_team_id;
    joint := own;
    joint.tokens_per_month := least(own.tokens_per_month, p_tokens_per_month);
    SELECT v.refusal, v.until INTO refusal, until
        FROM commonplace.budget_verdict(joint, p_spent_tokens, p_spent_cost, p_aside_tokens, p_aside_cost, p_at) AS v;
    IF refusal = 'tokens' AND (p_spent_tokens >= own.tokens_per_month) IS NOT TRUE THEN
        until := least(until, p_at + interval '1 hour');
    END IF;
END
$$;
-- p_call of reserve_v1 may say "tokensPerMonth" from here on.
DO $$
DECLARE
    known text := pg_get_functiondef('commonplace.reserve_v1(uuid, uuid, text, bigint, jsonb)'::regprocedure);
    changed text := regexp_replace(known,
        'LEFT JOIN commonplace\.team_limits l ON l\.team_id = p_team_id\s+CROSS JOIN LATERAL commonplace\.budget_verdict\(l, ',
        'CROSS JOIN LATERAL commonplace.stricter_verdict(p_team_id, (p_call ->> ''tokensPerMonth'')::bigint, ');
BEGIN
    IF changed = known THEN
        RAISE EXCEPTION 'reserve_v1 is not what this migration knows';
    END IF;
    EXECUTE changed;
END
$$;

-- A key as people see it: never a token, never a hash.
CREATE FUNCTION commonplace.key_json(k commonplace.api_keys) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('id', k.id, 'label', k.name, 'scopes', to_jsonb(k.scopes), 'projectId', k.project_id,
    'project', (SELECT p.name FROM commonplace.projects p WHERE p.team_id = k.team_id AND p.id = k.project_id),
    'actor', k.actor, 'mintedBy', k.minted_by, 'managed', k.owner_uid IS NOT NULL,
    'status', CASE
        WHEN k.state = 'revoked' OR (k.state = 'grace' AND k.grace_until <= now()) THEN 'revoked'
        WHEN k.expires_at <= now() THEN 'expired'
        WHEN k.state = 'grace' THEN 'grace'
        ELSE 'active' END,
    'expiresAt', commonplace.iso_utc(k.expires_at), 'createdAtEpoch', commonplace.epoch_ms(k.created_at),
    'lastUsedAtEpoch', commonplace.epoch_ms(k.last_used_at), 'revokedAtEpoch', commonplace.epoch_ms(k.revoked_at));

-- A key that another key asks for. It acts as the same actor, reaches no further and lives no longer.
-- p_key: {"id", "project"|null, "label", "scopes", "tokenId", "tokenHash", "expiresInDays"|null}; the scopes are checked already.
-- Returns {"outcome": minted, "key"} or {"outcome": full, "used", "cap"}: the team may have no more keys.
CREATE FUNCTION commonplace.mint_key_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text, p_key jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    minter commonplace.api_keys;
    minted commonplace.api_keys;
    meant uuid;
    allowed bigint;
    live bigint;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := p_key_project;
    IF p_key ->> 'project' IS NOT NULL THEN
        meant := commonplace.resolve_project(p_team_id, p_key_project, p_key ->> 'project', 0);
        IF meant IS NULL THEN
            RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
        END IF;
    END IF;
    SELECT api_keys INTO allowed FROM commonplace.team_limits WHERE team_id = p_team_id;
    IF allowed IS NOT NULL THEN
        -- Counts exactly among those who mint. An ApiKey issued in the same instant may make it one more.
        PERFORM pg_advisory_xact_lock(hashtextextended('commonplace.keys:' || p_team_id, 0));
        SELECT count(DISTINCT coalesce(owner_uid, id::text)) INTO live FROM commonplace.api_keys
        WHERE team_id = p_team_id AND state <> 'revoked' AND (expires_at IS NULL OR expires_at > now());
        IF live >= allowed THEN
            RETURN jsonb_build_object('outcome', 'full', 'used', live, 'cap', allowed);
        END IF;
    END IF;
    -- Held until the commit: whoever revokes the minting key at this moment comes first, or finds what it has minted.
    SELECT * INTO minter FROM commonplace.api_keys WHERE team_id = p_team_id AND id = p_key_id AND state <> 'revoked' FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Invalid API key or insufficient scope' USING ERRCODE = 'CM100';
    END IF;
    INSERT INTO commonplace.api_keys (id, team_id, project_id, name, actor, scopes, token_id, token_hash, state, expires_at,
        published_at, minted_by)
    VALUES ((p_key ->> 'id')::uuid, p_team_id, meant, p_key ->> 'label', p_actor,
        ARRAY(SELECT jsonb_array_elements_text(p_key -> 'scopes')), p_key ->> 'tokenId', p_key ->> 'tokenHash', 'published',
        least(now() + make_interval(hours => 24 * (p_key ->> 'expiresInDays')::integer), minter.expires_at,
            CASE minter.state WHEN 'grace' THEN minter.grace_until END), now(), p_key_id)
    RETURNING * INTO minted;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'api_key.create', 'api_key', minted.id::text,
        jsonb_build_object('requestId', p_request_id, 'source', 'http', 'label', minted.name, 'scopes', to_jsonb(minted.scopes),
            'expiresAt', commonplace.iso_utc(minted.expires_at)));
    RETURN jsonb_build_object('outcome', 'minted', 'key', commonplace.key_json(minted));
END
$$;

-- A moment to the microsecond, as cursors carry it.
CREATE FUNCTION commonplace.iso_micros(p_time timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- Keys of the team, or of the key's project, newest first: {"keys": [key_json], "next": {"at", "id"} or null}.
-- p_after_at and p_after_id: what "next" said.
CREATE FUNCTION commonplace.list_keys_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_limit integer, p_after_at timestamptz, p_after_id uuid)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found commonplace.api_keys[];
    listed jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    found := ARRAY(SELECT k FROM commonplace.api_keys k
        WHERE team_id = p_team_id AND (p_key_project IS NULL OR project_id = p_key_project)
            AND (p_after_at IS NULL OR (created_at, id) < (p_after_at, p_after_id))
        ORDER BY created_at DESC, id DESC LIMIT p_limit + 1);
    SELECT coalesce(jsonb_agg(commonplace.key_json(k) ORDER BY k.created_at DESC, k.id DESC), '[]') INTO listed
        FROM unnest(found[:p_limit]) AS k;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, p_key_project, p_key_id, p_actor, p_request_id, 'api_key.list', 'api_key',
        jsonb_build_object('requestId', p_request_id, 'resultCount', jsonb_array_length(listed)));
    RETURN jsonb_build_object('keys', listed, 'next', CASE WHEN cardinality(found) > p_limit
        THEN jsonb_build_object('at', commonplace.iso_micros((found[p_limit]).created_at), 'id', (found[p_limit]).id) END);
END
$$;

-- The key is refused from its next request on. Returns {"id", "outcome": revoked|managed|wider}, or NULL for no such key.
-- managed: an ApiKey object owns it, whose operator would issue another one. wider: it may do something that is not among p_scopes, and
-- is not the caller's own; who holds a narrow key must not shut out those who could revoke it.
CREATE FUNCTION commonplace.revoke_key_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_revoked_id text, p_scopes text[])
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known commonplace.api_keys;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT * INTO known FROM commonplace.api_keys WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_revoked_id)
        AND (p_key_project IS NULL OR project_id = p_key_project) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF known.state <> 'revoked' AND known.owner_uid IS NOT NULL THEN
        RETURN jsonb_build_object('id', known.id, 'outcome', 'managed');
    ELSIF known.state <> 'revoked' AND known.id <> p_key_id AND NOT known.scopes <@ p_scopes AND NOT '*' = ANY (p_scopes) THEN
        RETURN jsonb_build_object('id', known.id, 'outcome', 'wider');
    END IF;
    UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now(), updated_at = now()
        WHERE team_id = p_team_id AND id = known.id AND state <> 'revoked';
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, known.project_id, p_key_id, p_actor, p_request_id, 'api_key.revoke', 'api_key', known.id::text,
        jsonb_build_object('requestId', p_request_id, 'source', 'http', 'label', known.name)
        || CASE known.state WHEN 'revoked' THEN jsonb_build_object('outcome', 'noop_already_revoked') ELSE '{}' END);
    RETURN jsonb_build_object('id', known.id, 'outcome', 'revoked');
END
$$;

-- The audit is read newest first, by time: of a team, of a project, and by request. What few rows tell of is found by its
-- action; what most rows tell of (below) is found near the end, and an index for it would cost the hot paths most. Key, actor
-- and target have none: a million rows are looked through in a third of a second, fewer within a time.
CREATE INDEX audit_log_by_time ON commonplace.audit_log (team_id, created_at DESC, number DESC);
DROP INDEX commonplace.audit_log_of_team;
CREATE INDEX audit_log_of_project ON commonplace.audit_log (team_id, project_id, created_at DESC, number DESC);
CREATE INDEX audit_log_of_request ON commonplace.audit_log (team_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_log_of_action ON commonplace.audit_log (team_id, action, created_at DESC)
    WHERE action <> ALL (ARRAY['event.received', 'event.batch_received', 'observation.read', 'observation.created',
        'generation_job.processing', 'generation_job.completed', 'session.write', 'session.start', 'session.end']);

-- The actions that a filter means: its names, and those that the team has of each prefix.
CREATE FUNCTION commonplace.audit_actions(p_team_id uuid, p_names jsonb, p_prefix text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    hot CONSTANT text[] := ARRAY['event.received', 'event.batch_received', 'observation.read', 'observation.created',
        'generation_job.processing', 'generation_job.completed', 'session.write', 'session.start', 'session.end'];
    names text[] := ARRAY(SELECT jsonb_array_elements_text(p_names));
    seen text := '';
BEGIN
    IF p_prefix IS NULL THEN
        RETURN names;
    END IF;
    names := names || ARRAY(SELECT name FROM unnest(hot) AS name WHERE starts_with(name, p_prefix));
    LOOP
        -- From one action to the next through the index, however many rows each has.
        SELECT min(action) INTO seen FROM commonplace.audit_log
            WHERE team_id = p_team_id AND action > seen AND action <> ALL (hot);
        EXIT WHEN seen IS NULL;
        IF starts_with(seen, p_prefix) THEN
            names := names || seen;
        END IF;
    END LOOP;
    RETURN names;
END
$$;

-- The audit of a project (id or name), or of the whole team where p_wanted has no "project", newest first, and the row that
-- says it was read. p_wanted: {"project"?, "since"?, "until"? (ISO), "actor"?, "keyId"?, "actions"?: [name], "prefix"?,
-- "requestId"?, "targetType"?, "targetId"?, "at"? and "number"?: what "next" said}; each given one narrows.
-- Returns {"audit": [row], "next": {"at", "number"} or null}. CM100: the key is bound to another project.
CREATE FUNCTION commonplace.list_audit_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_wanted jsonb, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    is_whole boolean := p_wanted ->> 'project' IS NULL;
    meant uuid;
    -- Once: in the statement it would be asked of every row that is passed over.
    wanted_key uuid := commonplace.uuid_or_null(p_wanted ->> 'keyId');
    actions text[];
    found commonplace.audit_log[];
    listed jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF is_whole AND p_key_project IS NOT NULL THEN
        RAISE EXCEPTION 'API key is scoped to a different project' USING ERRCODE = 'CM100';
    ELSIF NOT is_whole THEN
        meant := commonplace.resolve_project(p_team_id, p_key_project, p_wanted ->> 'project', 0);
    END IF;
    IF p_wanted ? 'actions' THEN
        actions := commonplace.audit_actions(p_team_id, p_wanted -> 'actions', p_wanted ->> 'prefix');
    END IF;
    found := ARRAY(SELECT a FROM commonplace.audit_log a
        WHERE team_id = p_team_id AND (is_whole OR project_id = meant)
            AND (p_wanted ->> 'since' IS NULL OR created_at >= (p_wanted ->> 'since')::timestamptz)
            AND (p_wanted ->> 'until' IS NULL OR created_at < (p_wanted ->> 'until')::timestamptz)
            AND (p_wanted ->> 'at' IS NULL
                OR (created_at, number) < ((p_wanted ->> 'at')::timestamptz, (p_wanted ->> 'number')::bigint))
            AND (p_wanted ->> 'actor' IS NULL OR actor = p_wanted ->> 'actor')
            AND (p_wanted ->> 'keyId' IS NULL OR key_id = wanted_key)
            AND (actions IS NULL OR action = ANY (actions))
            AND (p_wanted ->> 'requestId' IS NULL OR request_id = p_wanted ->> 'requestId')
            AND (p_wanted ->> 'targetType' IS NULL OR resource_type = p_wanted ->> 'targetType')
            AND (p_wanted ->> 'targetId' IS NULL OR resource_id = p_wanted ->> 'targetId')
        ORDER BY created_at DESC, number DESC LIMIT p_limit + 1);
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'teamId', a.team_id, 'projectId', a.project_id, 'keyId', a.key_id,
            'actor', a.actor, 'requestId', a.request_id, 'action', a.action, 'targetType', a.resource_type,
            'targetId', a.resource_id, 'metadata', a.details, 'createdAtEpoch', commonplace.epoch_ms(a.created_at))
        ORDER BY a.created_at DESC, a.number DESC), '[]') INTO listed FROM unnest(found[:p_limit]) AS a;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'audit.read', 'audit_log',
        jsonb_build_object('requestId', p_request_id, 'resultCount', jsonb_array_length(listed), 'filters', p_wanted));
    RETURN jsonb_build_object('audit', listed, 'next', CASE WHEN cardinality(found) > p_limit
        THEN jsonb_build_object('at', commonplace.iso_micros((found[p_limit]).created_at), 'number', (found[p_limit]).number) END);
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.authenticate_v2(text, text[], bigint, bigint, bigint, boolean),
    commonplace.stricter_verdict(uuid, bigint, bigint, bigint, bigint, bigint, timestamptz),
    commonplace.key_json(commonplace.api_keys),
    commonplace.mint_key_v1(uuid, uuid, uuid, text, text, jsonb),
    commonplace.iso_micros(timestamptz),
    commonplace.list_keys_v1(uuid, uuid, uuid, text, text, integer, timestamptz, uuid),
    commonplace.revoke_key_v1(uuid, uuid, uuid, text, text, text, text[]),
    commonplace.audit_actions(uuid, jsonb, text),
    commonplace.list_audit_v1(uuid, uuid, uuid, text, text, jsonb, integer)
TO commonplace_runtime;
