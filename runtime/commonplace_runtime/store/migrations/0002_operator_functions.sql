-- All that the operator may do to the database. Each function takes (installation, term, generation, …):
-- an older leader's term is refused (CM001), so is an older generation of the object (CM002).
-- Each is idempotent and writes nothing when nothing differs.

-- Refuses an older term and records a newer one. The shared lock lasts to the end of the transaction,
-- so no statement of an old leader can commit after the new leader's first one.
-- No lock is taken before the write: two calls of a new term that both held the shared lock could neither write.
CREATE FUNCTION commonplace.fence(p_installation text, p_term bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known bigint;
BEGIN
    SELECT term INTO known FROM commonplace.installations WHERE installation = p_installation;
    IF known IS NULL OR known < p_term THEN
        INSERT INTO commonplace.installations AS i (installation, term) VALUES (p_installation, p_term)
        ON CONFLICT (installation) DO UPDATE SET term = excluded.term, updated_at = now() WHERE i.term < excluded.term;
    END IF;
    SELECT term INTO known FROM commonplace.installations WHERE installation = p_installation FOR SHARE;
    IF known > p_term THEN
        RAISE EXCEPTION 'term % of installation % is over: term % leads', p_term, p_installation, known
            USING ERRCODE = 'CM001';
    END IF;
END
$$;

CREATE FUNCTION commonplace.refuse_older_generation(p_known bigint, p_given bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_known > p_given THEN
        RAISE EXCEPTION 'generation % is older than the recorded %', p_given, p_known USING ERRCODE = 'CM002';
    END IF;
END
$$;

CREATE FUNCTION commonplace.audit_operator(p_team_id uuid, p_installation text, p_action text, p_type text, p_id text, p_details jsonb)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO commonplace.audit_log (team_id, actor, action, resource_type, resource_id, details)
    VALUES (p_team_id, 'system:operator', p_action, p_type, p_id, p_details || jsonb_build_object('installation', p_installation));
$$;

-- Recompute the materialised minimum. Not for the operator: called by the functions below.
CREATE FUNCTION commonplace.refresh_team_limits(p_team_id uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO commonplace.team_limits (team_id, requests_per_minute, requests_per_month, tokens_per_month, cost_per_month_usd,
        memories, storage_bytes, api_keys, workers, soft_tokens_per_month, soft_cost_per_month_usd, metered, updated_at)
    SELECT p_team_id,
        min(requests_per_minute) FILTER (WHERE enforcement = 'Enforce'),
        min(requests_per_month) FILTER (WHERE enforcement = 'Enforce'),
        min(tokens_per_month) FILTER (WHERE enforcement = 'Enforce'),
        min(cost_per_month_usd) FILTER (WHERE enforcement = 'Enforce'),
        min(memories) FILTER (WHERE enforcement = 'Enforce'),
        min(storage_bytes) FILTER (WHERE enforcement = 'Enforce'),
        min(api_keys) FILTER (WHERE enforcement = 'Enforce'),
        min(workers) FILTER (WHERE enforcement = 'Enforce'),
        min(soft_tokens_per_month) FILTER (WHERE enforcement = 'Enforce'),
        min(soft_cost_per_month_usd) FILTER (WHERE enforcement = 'Enforce'),
        coalesce(bool_or(num_nonnulls(requests_per_month, tokens_per_month, cost_per_month_usd,
            soft_tokens_per_month, soft_cost_per_month_usd) > 0), false),
        now()
    FROM commonplace.quotas WHERE team_id = p_team_id
    ON CONFLICT (team_id) DO UPDATE SET
        requests_per_minute = excluded.requests_per_minute, requests_per_month = excluded.requests_per_month,
        tokens_per_month = excluded.tokens_per_month, cost_per_month_usd = excluded.cost_per_month_usd,
        memories = excluded.memories, storage_bytes = excluded.storage_bytes, api_keys = excluded.api_keys,
        workers = excluded.workers, soft_tokens_per_month = excluded.soft_tokens_per_month,
        soft_cost_per_month_usd = excluded.soft_cost_per_month_usd, metered = excluded.metered, updated_at = now();
$$;

-- Drop the limits of a team's Quota objects, p_installation NULL: of every installation. Not for the operator.
CREATE FUNCTION commonplace.drop_quotas(p_team_id uuid, p_installation text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM commonplace.quotas WHERE team_id = p_team_id AND installation = coalesce(p_installation, installation);
    IF FOUND THEN
        PERFORM commonplace.refresh_team_limits(p_team_id);
    END IF;
END
$$;

-- Team row of one MemoryTeam, with its projects and members.
-- p_team_id: id for a new row. p_projects: [{"id": uuid for a new row, "name", "displayName"?}], a missing
-- name stays (its memories are data), p_members: [{"actor", "role"}] is the whole list.
-- p_policies: {"defaultVisibility"?, "generationMode"?, "windowSeconds"?, "eventRetentionSeconds"?, "namespace"?}.
-- Returns {"teamId", "slug", "outcome": created|adopted|updated|unchanged, "projects": [{"name", "id"}]}.
-- CM003: the slug is another's. A row is taken over when it was detached in the same installation by a team of the same
-- namespace: a tenant that names another's old slug must not get the other's memories. With p_adopt any row is that is
-- detached, of people, of another cluster, or of the owner p_gone_owner, whom the caller knows to exist no more.
-- The error's detail is {"ownerUid", "namespace"} where only that owner's absence is missing.
-- Whoever takes over starts clean: keys and limits of the former owner's objects go.
CREATE FUNCTION commonplace.put_team_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text,
    p_team_id uuid, p_slug text, p_name text, p_policies jsonb, p_projects jsonb, p_members jsonb, p_adopt boolean,
    p_gone_owner text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    team commonplace.teams;
    before commonplace.teams;
    outcome text := 'updated';
    origin jsonb := jsonb_strip_nulls(jsonb_build_object('namespace', p_policies ->> 'namespace'));
    touched bigint;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    SELECT * INTO team FROM commonplace.teams WHERE owner_uid = p_owner_uid FOR UPDATE;
    IF FOUND AND team.installation <> p_installation THEN
        IF NOT p_adopt THEN
            RAISE EXCEPTION 'team % belongs to installation %', team.id, team.installation USING ERRCODE = 'CM003';
        END IF;
        outcome := 'adopted';
    ELSIF NOT FOUND THEN
        INSERT INTO commonplace.teams (id, slug, name, metadata, installation, owner_uid, generation, term)
        VALUES (p_team_id, p_slug, p_name, origin, p_installation, p_owner_uid, p_generation, p_term)
        ON CONFLICT (slug) DO NOTHING RETURNING * INTO team;
        outcome := 'created';
    END IF;
    IF team.id IS NULL THEN
        SELECT * INTO team FROM commonplace.teams WHERE slug = p_slug FOR UPDATE;
        IF NOT (team.detached_at IS NOT NULL AND team.installation IS NOT DISTINCT FROM p_installation
                AND team.metadata ->> 'namespace' IS NOT DISTINCT FROM p_policies ->> 'namespace') THEN
            IF NOT p_adopt THEN
                RAISE EXCEPTION 'slug % belongs to team %', p_slug, team.id USING ERRCODE = 'CM003';
            ELSIF team.detached_at IS NULL AND split_part(team.installation, '/', 1) = split_part(p_installation, '/', 1)
                    AND team.owner_uid IS DISTINCT FROM p_gone_owner THEN
                RAISE EXCEPTION 'slug % belongs to team %, whose owner is there', p_slug, team.id USING ERRCODE = 'CM003',
                    DETAIL = jsonb_build_object('ownerUid', team.owner_uid, 'namespace', team.metadata ->> 'namespace');
            END IF;
        END IF;
        outcome := 'adopted';
    ELSIF outcome = 'updated' THEN
        PERFORM commonplace.refuse_older_generation(team.generation, p_generation);
    END IF;
    before := team;
    team.name := p_name;
    team.default_visibility := p_policies ->> 'defaultVisibility';
    team.generation_mode := coalesce(p_policies ->> 'generationMode', 'per-event');
    team.generation_window_seconds := coalesce((p_policies ->> 'windowSeconds')::integer, 60);
    team.event_retention_seconds := (p_policies ->> 'eventRetentionSeconds')::bigint;
    team.detached_at := NULL;
    team.metadata := team.metadata || origin;
    team.installation := p_installation;
    team.owner_uid := p_owner_uid;
    team.generation := p_generation;
    IF team IS DISTINCT FROM before THEN
        UPDATE commonplace.teams SET name = team.name, default_visibility = team.default_visibility,
            generation_mode = team.generation_mode, generation_window_seconds = team.generation_window_seconds,
            event_retention_seconds = team.event_retention_seconds, metadata = team.metadata, detached_at = NULL, installation = p_installation,
            owner_uid = p_owner_uid, generation = p_generation, term = p_term, updated_at = now()
        WHERE id = team.id;
    ELSIF outcome = 'updated' THEN
        outcome := 'unchanged';
    END IF;
    IF outcome = 'adopted' THEN
        UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now(), term = p_term, updated_at = now()
            WHERE team_id = team.id AND owner_uid IS NOT NULL AND state <> 'revoked';
        PERFORM commonplace.drop_quotas(team.id, NULL);
    END IF;
    INSERT INTO commonplace.projects AS known (id, team_id, name, display_name)
    SELECT (wanted ->> 'id')::uuid, team.id, wanted ->> 'name', wanted ->> 'displayName'
    FROM jsonb_array_elements(p_projects) AS wanted
    ON CONFLICT (team_id, name) DO UPDATE SET display_name = excluded.display_name, updated_at = now()
        WHERE known.display_name IS DISTINCT FROM excluded.display_name;
    GET DIAGNOSTICS touched = ROW_COUNT;
    DELETE FROM commonplace.team_members m WHERE m.team_id = team.id
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(p_members) w WHERE w ->> 'actor' = m.actor);
    INSERT INTO commonplace.team_members AS m (team_id, actor, role)
    SELECT team.id, w ->> 'actor', w ->> 'role' FROM jsonb_array_elements(p_members) AS w
    ON CONFLICT (team_id, actor) DO UPDATE SET role = excluded.role WHERE m.role <> excluded.role;
    IF outcome = 'unchanged' AND touched > 0 THEN
        outcome := 'updated';
    END IF;
    IF outcome <> 'unchanged' THEN
        PERFORM commonplace.audit_operator(team.id, p_installation, 'team.' || outcome, 'team', team.id::text, '{}');
    END IF;
    RETURN jsonb_build_object('teamId', team.id, 'slug', team.slug, 'outcome', outcome, 'projects',
        (SELECT coalesce(jsonb_agg(jsonb_build_object('name', name, 'id', id) ORDER BY name), '[]')
         FROM commonplace.projects WHERE team_id = team.id));
END
$$;

-- The MemoryTeam is gone: every key of the team is revoked, its Quotas' limits go; the data stays (detached) or goes.
-- A Quota that is still there puts its limits back when the team has come back.
-- Only the row that this object owns is touched: a duplicate that never reconciled deletes nothing.
-- Returns {"outcome": absent|detached|deleted|unchanged, "revokedKeys": n}.
CREATE FUNCTION commonplace.release_team_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text,
    p_delete_data boolean)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    team commonplace.teams;
    revoked bigint;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    SELECT * INTO team FROM commonplace.teams
        WHERE owner_uid = p_owner_uid AND installation = p_installation FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'absent', 'revokedKeys', 0);
    END IF;
    PERFORM commonplace.refuse_older_generation(team.generation, p_generation);
    UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now(), term = p_term, updated_at = now()
        WHERE team_id = team.id AND state <> 'revoked';
    GET DIAGNOSTICS revoked = ROW_COUNT;
    IF p_delete_data THEN
        DELETE FROM commonplace.teams WHERE id = team.id;
        RETURN jsonb_build_object('outcome', 'deleted', 'revokedKeys', revoked);
    END IF;
    PERFORM commonplace.drop_quotas(team.id, p_installation);
    IF team.detached_at IS NOT NULL AND revoked = 0 THEN
        RETURN jsonb_build_object('outcome', 'unchanged', 'revokedKeys', 0);
    END IF;
    UPDATE commonplace.teams SET detached_at = coalesce(detached_at, now()), generation = p_generation, term = p_term,
        updated_at = now() WHERE id = team.id;
    PERFORM commonplace.audit_operator(team.id, p_installation, 'team.detached', 'team', team.id::text,
        jsonb_build_object('revokedKeys', revoked));
    RETURN jsonb_build_object('outcome', 'detached', 'revokedKeys', revoked);
END
$$;

-- The live keys of one ApiKey object and its newest revision number (0 when it never had one), which counts those of
-- another installation too: a revision is given out once.
-- Returns {"newestRevision", "now", "keys": [{"id", "teamId", "projectId", "project", "revision", "state", "tokenId", "tokenHash",
--   "actor", "scopes", "expiresAt", "graceUntil", "publishedAt", "lastUsedAt", "rotationMark"}]} without revoked ones.
CREATE FUNCTION commonplace.observe_key_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    RETURN jsonb_build_object(
        'now', now(),
        'newestRevision', (SELECT coalesce(max(revision), 0) FROM commonplace.api_keys
                           WHERE owner_uid = p_owner_uid),
        'keys', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', k.id, 'teamId', k.team_id, 'projectId', k.project_id, 'project', p.name, 'revision', k.revision, 'state', k.state,
                'tokenId', k.token_id, 'tokenHash', k.token_hash, 'actor', k.actor, 'scopes', to_jsonb(k.scopes),
                'expiresAt', k.expires_at, 'graceUntil', k.grace_until, 'publishedAt', k.published_at,
                'lastUsedAt', k.last_used_at, 'rotationMark', k.rotation_mark) ORDER BY k.revision), '[]')
            FROM commonplace.api_keys k LEFT JOIN commonplace.projects p ON p.id = k.project_id
            WHERE k.owner_uid = p_owner_uid AND k.installation = p_installation AND k.state <> 'revoked'));
END
$$;

-- Lock the team for the rest of the transaction. CM004: it does not exist, is detached or is another installation's.
CREATE FUNCTION commonplace.lock_team(p_installation text, p_team_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder text;
BEGIN
    SELECT installation INTO holder FROM commonplace.teams WHERE id = p_team_id AND detached_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'team % does not exist', p_team_id USING ERRCODE = 'CM004';
    ELSIF holder IS DISTINCT FROM p_installation THEN
        RAISE EXCEPTION 'team % belongs to installation %', p_team_id, coalesce(holder, 'of people') USING ERRCODE = 'CM004';
    END IF;
END
$$;

-- Step 1 of issuing: the hash of a token that nobody holds yet, unpublished, already able to authenticate.
-- p_key: {"id", "revision", "tokenId", "tokenHash", "name", "project"? (name), "actor", "scopes", "expiresAt"?, "rotationMark"?}.
-- An unpublished row is overwritten, for nobody holds its token; any other row of that revision is left alone
-- and must carry the same hash. Returns {"id", "projectId", "outcome": created|overwritten|unchanged}.
-- CM004: no such team or project, or it is another installation's. CM005: the team's limit of keys is reached.
CREATE FUNCTION commonplace.put_key_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text,
    p_team_id uuid, p_key jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    project uuid;
    known commonplace.api_keys;
    allowed bigint;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    -- The row lock makes the count below exact among concurrent issues of one team.
    PERFORM commonplace.lock_team(p_installation, p_team_id);
    IF p_key ->> 'project' IS NOT NULL THEN
        SELECT id INTO project FROM commonplace.projects WHERE team_id = p_team_id AND name = p_key ->> 'project';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'team % has no project %', p_team_id, p_key ->> 'project' USING ERRCODE = 'CM004';
        END IF;
    END IF;
    SELECT * INTO known FROM commonplace.api_keys
        WHERE owner_uid = p_owner_uid AND installation <> p_installation AND state <> 'revoked' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'key % belongs to installation %', known.id, known.installation USING ERRCODE = 'CM004';
    END IF;
    SELECT * INTO known FROM commonplace.api_keys
        WHERE owner_uid = p_owner_uid AND installation = p_installation
            AND (state = 'unpublished' OR revision = (p_key ->> 'revision')::integer)
        ORDER BY state = 'unpublished' DESC LIMIT 1 FOR UPDATE;
    IF FOUND THEN
        PERFORM commonplace.refuse_older_generation(known.generation, p_generation);
        IF known.token_hash = p_key ->> 'tokenHash' THEN
            RETURN jsonb_build_object('id', known.id, 'projectId', known.project_id, 'outcome', 'unchanged');
        END IF;
        IF known.state <> 'unpublished' THEN
            RAISE EXCEPTION 'revision % is already published with another token', known.revision USING ERRCODE = 'CM002';
        END IF;
        DELETE FROM commonplace.api_keys WHERE id = known.id;
    END IF;
    SELECT api_keys INTO allowed FROM commonplace.team_limits WHERE team_id = p_team_id;
    IF allowed IS NOT NULL AND NOT EXISTS (SELECT FROM commonplace.api_keys
            WHERE owner_uid = p_owner_uid AND state <> 'revoked')
        AND allowed <= (SELECT count(DISTINCT coalesce(owner_uid, id::text)) FROM commonplace.api_keys
            WHERE team_id = p_team_id AND state <> 'revoked' AND (expires_at IS NULL OR expires_at > now())
                AND owner_uid IS DISTINCT FROM p_owner_uid) THEN
        RAISE EXCEPTION 'team % may have % keys', p_team_id, allowed USING ERRCODE = 'CM005';
    END IF;
    INSERT INTO commonplace.api_keys (id, team_id, project_id, name, actor, scopes, token_id, token_hash, state, revision,
        rotation_mark, expires_at, installation, owner_uid, generation, term)
    VALUES ((p_key ->> 'id')::uuid, p_team_id, project, p_key ->> 'name', p_key ->> 'actor',
        ARRAY(SELECT jsonb_array_elements_text(p_key -> 'scopes')), p_key ->> 'tokenId', p_key ->> 'tokenHash', 'unpublished',
        (p_key ->> 'revision')::integer, p_key ->> 'rotationMark', (p_key ->> 'expiresAt')::timestamptz,
        p_installation, p_owner_uid, p_generation, p_term);
    RETURN jsonb_build_object('id', p_key ->> 'id', 'projectId', project,
        'outcome', CASE WHEN known.id IS NULL THEN 'created' ELSE 'overwritten' END);
END
$$;

-- Step 3: the token of p_revision is in the Secret. Publish it, put the previous key into grace for
-- p_grace_seconds, revoke one that was still in grace; all in this one transaction.
-- Returns {"outcome": published|unchanged, "publishedAt", "inGrace": revision|null, "revokedEarly": [revision, …]}.
CREATE FUNCTION commonplace.publish_key_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text,
    p_revision integer, p_grace_seconds bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fresh commonplace.api_keys;
    early integer[];
    demoted integer;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    SELECT * INTO fresh FROM commonplace.api_keys
        WHERE owner_uid = p_owner_uid AND revision = p_revision AND installation = p_installation FOR UPDATE;
    IF NOT FOUND OR fresh.state IN ('revoked', 'grace') THEN
        RAISE EXCEPTION 'no unpublished key of revision %', p_revision USING ERRCODE = 'CM004';
    END IF;
    PERFORM commonplace.refuse_older_generation(fresh.generation, p_generation);
    IF fresh.state = 'published' THEN
        RETURN jsonb_build_object('outcome', 'unchanged', 'publishedAt', fresh.published_at, 'inGrace', NULL, 'revokedEarly', '[]'::jsonb);
    END IF;
    WITH gone AS (
        UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now(), updated_at = now()
        WHERE owner_uid = p_owner_uid AND installation = p_installation AND state = 'grace' RETURNING revision, grace_until)
    SELECT array_agg(revision) FILTER (WHERE grace_until > now()) INTO early FROM gone;
    UPDATE commonplace.api_keys SET state = 'grace', grace_until = now() + make_interval(secs => p_grace_seconds), updated_at = now()
        WHERE owner_uid = p_owner_uid AND installation = p_installation AND state = 'published' RETURNING revision INTO demoted;
    UPDATE commonplace.api_keys SET state = 'published', published_at = now(), generation = p_generation, term = p_term,
        updated_at = now() WHERE id = fresh.id;
    PERFORM commonplace.audit_operator(fresh.team_id, p_installation,
        CASE WHEN demoted IS NULL THEN 'api_key.create' ELSE 'api_key.rotate' END, 'api_key', fresh.id::text,
        jsonb_build_object('revision', p_revision));
    RETURN jsonb_build_object('outcome', 'published', 'publishedAt', now(), 'inGrace', demoted,
        'revokedEarly', coalesce(to_jsonb(early), '[]'::jsonb));
END
$$;

-- Project, actor, scopes and expiry of the published keys follow the object without a new token.
-- p_key: {"project"? (name), "actor", "scopes", "expiresAt"?, "rotationMark"?}. Returns the number of rows that changed.
-- The key in grace follows in scopes and project (never wider than what the object grants now).
CREATE FUNCTION commonplace.amend_key_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text, p_key jsonb)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    team uuid;
    project uuid;
    changed integer;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    SELECT team_id INTO team FROM commonplace.api_keys
        WHERE owner_uid = p_owner_uid AND installation = p_installation AND state <> 'revoked' LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF p_key ->> 'project' IS NOT NULL THEN
        SELECT id INTO project FROM commonplace.projects WHERE team_id = team AND name = p_key ->> 'project';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'team % has no project %', team, p_key ->> 'project' USING ERRCODE = 'CM004';
        END IF;
    END IF;
    UPDATE commonplace.api_keys SET project_id = project, actor = p_key ->> 'actor',
        scopes = ARRAY(SELECT jsonb_array_elements_text(p_key -> 'scopes')), expires_at = (p_key ->> 'expiresAt')::timestamptz,
        generation = p_generation, term = p_term, updated_at = now()
    WHERE owner_uid = p_owner_uid AND installation = p_installation AND state <> 'revoked' AND generation <= p_generation
        AND (project_id, actor, scopes, expires_at) IS DISTINCT FROM (project, p_key ->> 'actor',
            ARRAY(SELECT jsonb_array_elements_text(p_key -> 'scopes')), (p_key ->> 'expiresAt')::timestamptz);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed > 0 THEN
        PERFORM commonplace.audit_operator(team, p_installation, 'api_key.amend', 'api_key', p_owner_uid, jsonb_build_object('rows', changed));
    END IF;
    RETURN changed;
END
$$;

-- Every key of the object, published or not, is refused from now on. Returns how many were live.
CREATE FUNCTION commonplace.revoke_keys_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    revoked integer;
    team uuid;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    WITH gone AS (
        UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now(), term = p_term, updated_at = now()
        WHERE owner_uid = p_owner_uid AND installation = p_installation AND state <> 'revoked' RETURNING team_id)
    SELECT count(*), (array_agg(team_id))[1] INTO revoked, team FROM gone;
    IF revoked > 0 THEN
        PERFORM commonplace.audit_operator(team, p_installation, 'api_key.revoke', 'api_key', p_owner_uid, jsonb_build_object('rows', revoked));
    END IF;
    RETURN revoked;
END
$$;

-- Limits of one Quota object. p_limits: {"requestsPerMinute", "requestsPerMonth", "tokensPerMonth", "costPerMonthUSD",
--   "memories", "storageBytes", "apiKeys", "workers", "softTokensPerMonth", "softCostPerMonthUSD"}, absent = no limit.
-- Returns {"outcome": created|updated|unchanged, "effective": the minimum over the team's enforced Quotas, "used": {...},
--   "measuredAt"}. CM004: no such team, or it is another installation's.
CREATE FUNCTION commonplace.put_quota_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text,
    p_quota_id uuid, p_team_id uuid, p_name text, p_limits jsonb, p_enforcement text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known commonplace.quotas;
    outcome text;
    touched bigint;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    PERFORM commonplace.lock_team(p_installation, p_team_id);
    SELECT * INTO known FROM commonplace.quotas WHERE owner_uid = p_owner_uid FOR UPDATE;
    outcome := CASE WHEN FOUND THEN 'updated' ELSE 'created' END;
    IF known.installation <> p_installation THEN
        RAISE EXCEPTION 'quota % belongs to installation %', known.id, known.installation USING ERRCODE = 'CM004';
    END IF;
    IF outcome = 'updated' THEN
        PERFORM commonplace.refuse_older_generation(known.generation, p_generation);
    END IF;
    INSERT INTO commonplace.quotas AS q (id, team_id, name, enforcement, requests_per_minute, requests_per_month, tokens_per_month,
        cost_per_month_usd, memories, storage_bytes, api_keys, workers, soft_tokens_per_month, soft_cost_per_month_usd,
        installation, owner_uid, generation, term)
    VALUES (coalesce(known.id, p_quota_id), p_team_id, p_name, p_enforcement,
        (p_limits ->> 'requestsPerMinute')::bigint, (p_limits ->> 'requestsPerMonth')::bigint, (p_limits ->> 'tokensPerMonth')::bigint,
        (p_limits ->> 'costPerMonthUSD')::numeric, (p_limits ->> 'memories')::bigint, (p_limits ->> 'storageBytes')::bigint,
        (p_limits ->> 'apiKeys')::bigint, (p_limits ->> 'workers')::bigint, (p_limits ->> 'softTokensPerMonth')::bigint,
        (p_limits ->> 'softCostPerMonthUSD')::numeric, p_installation, p_owner_uid, p_generation, p_term)
    ON CONFLICT (owner_uid) DO UPDATE SET team_id = excluded.team_id, name = excluded.name, enforcement = excluded.enforcement,
        requests_per_minute = excluded.requests_per_minute, requests_per_month = excluded.requests_per_month,
        tokens_per_month = excluded.tokens_per_month, cost_per_month_usd = excluded.cost_per_month_usd,
        memories = excluded.memories, storage_bytes = excluded.storage_bytes, api_keys = excluded.api_keys, workers = excluded.workers,
        soft_tokens_per_month = excluded.soft_tokens_per_month, soft_cost_per_month_usd = excluded.soft_cost_per_month_usd,
        installation = excluded.installation, generation = excluded.generation, term = excluded.term, updated_at = now()
    WHERE (q.team_id, q.name, q.enforcement, q.requests_per_minute, q.requests_per_month, q.tokens_per_month, q.cost_per_month_usd,
            q.memories, q.storage_bytes, q.api_keys, q.workers, q.soft_tokens_per_month, q.soft_cost_per_month_usd, q.generation)
        IS DISTINCT FROM (excluded.team_id, excluded.name, excluded.enforcement, excluded.requests_per_minute, excluded.requests_per_month,
            excluded.tokens_per_month, excluded.cost_per_month_usd, excluded.memories, excluded.storage_bytes, excluded.api_keys,
            excluded.workers, excluded.soft_tokens_per_month, excluded.soft_cost_per_month_usd, excluded.generation);
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched = 0 THEN
        outcome := 'unchanged';
    ELSE
        PERFORM commonplace.refresh_team_limits(p_team_id);
        IF known.team_id <> p_team_id THEN
            PERFORM commonplace.refresh_team_limits(known.team_id);
        END IF;
        PERFORM commonplace.audit_operator(p_team_id, p_installation, 'quota.' || outcome, 'quota', p_owner_uid, p_limits);
    END IF;
    RETURN jsonb_build_object('outcome', outcome, 'measuredAt', now(),
        'effective', (SELECT jsonb_strip_nulls(to_jsonb(l) - 'team_id' - 'metered' - 'updated_at')
                      FROM commonplace.team_limits l WHERE l.team_id = p_team_id),
        'used', jsonb_build_object(
            'memories', (SELECT count(*) FROM commonplace.memories WHERE team_id = p_team_id),
            'apiKeys', (SELECT count(DISTINCT coalesce(owner_uid, id::text)) FROM commonplace.api_keys
                        WHERE team_id = p_team_id AND state <> 'revoked'),
            'requestsPerMonth', (SELECT coalesce(sum(quantity), 0) FROM commonplace.usage_counters WHERE team_id = p_team_id
                AND kind = 'request' AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date),
            'tokensPerMonth', (SELECT coalesce(sum(quantity), 0) FROM commonplace.usage_counters WHERE team_id = p_team_id
                AND kind = 'tokens' AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date),
            'costPerMonthUSD', (SELECT trim_scale(coalesce(sum(quantity), 0) / 1000000.0) FROM commonplace.usage_counters
                WHERE team_id = p_team_id AND kind = 'cost_microusd'
                AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date)));
END
$$;

-- The Quota object is gone. Returns whether there was a row.
CREATE FUNCTION commonplace.release_quota_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    team uuid;
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    DELETE FROM commonplace.quotas WHERE owner_uid = p_owner_uid AND installation = p_installation RETURNING team_id INTO team;
    IF team IS NULL THEN
        RETURN false;
    END IF;
    PERFORM commonplace.refresh_team_limits(team);
    PERFORM commonplace.audit_operator(team, p_installation, 'quota.deleted', 'quota', p_owner_uid, '{}');
    RETURN true;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.put_team_v1(text, bigint, bigint, text, uuid, text, text, jsonb, jsonb, jsonb, boolean, text),
    commonplace.release_team_v1(text, bigint, bigint, text, boolean),
    commonplace.observe_key_v1(text, bigint, bigint, text),
    commonplace.put_key_v1(text, bigint, bigint, text, uuid, jsonb),
    commonplace.publish_key_v1(text, bigint, bigint, text, integer, bigint),
    commonplace.amend_key_v1(text, bigint, bigint, text, jsonb),
    commonplace.revoke_keys_v1(text, bigint, bigint, text),
    commonplace.put_quota_v1(text, bigint, bigint, text, uuid, uuid, text, jsonb, text),
    commonplace.release_quota_v1(text, bigint, bigint, text)
TO commonplace_operator;
