-- Memories and projects as resources: made, read, listed, changed and superseded.
-- A memory is reached by the team's keys of its project; a private one by its own actor only. What is out of reach is
-- answered like what is not there: NULL.
-- Locks: projects, memories

ALTER TABLE commonplace.projects ADD COLUMN slug text, ADD COLUMN root_path text;
GRANT INSERT (id, team_id, name, slug, root_path, metadata) ON commonplace.projects TO commonplace_runtime;

-- In place of the index over all teams' numbers: in its order the planner would rather read past everybody else's memories.
CREATE UNIQUE INDEX memories_of_team ON commonplace.memories (team_id, number DESC);
ALTER TABLE commonplace.memories DROP CONSTRAINT memories_number_key;
-- A memory's end looks for those that it superseded, to let them stand again.
CREATE INDEX memories_superseded ON commonplace.memories (team_id, superseded_by) WHERE superseded_by IS NOT NULL;

CREATE FUNCTION commonplace.project_json(p commonplace.projects) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object('id', p.id, 'teamId', p.team_id, 'name', p.name, 'slug', p.slug, 'rootPath', p.root_path,
    'metadata', p.metadata, 'createdAtEpoch', commonplace.epoch_ms(p.created_at), 'updatedAtEpoch', commonplace.epoch_ms(p.updated_at));

-- The projects that the key reaches, by name, after p_after where given, at most p_limit; and the audit row.
CREATE FUNCTION commonplace.list_projects_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_after text, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    page jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT coalesce(jsonb_agg(commonplace.project_json(p) ORDER BY p.name), '[]') INTO page FROM (
        SELECT * FROM commonplace.projects
        WHERE team_id = p_team_id AND (p_key_project IS NULL OR id = p_key_project) AND (p_after IS NULL OR name > p_after)
        ORDER BY name LIMIT p_limit) AS p;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, p_key_project, p_key_id, p_actor, p_request_id, 'projects.list', 'project',
        jsonb_build_object('resultCount', jsonb_array_length(page), 'requestId', p_request_id));
    RETURN page;
END
$$;

-- A project that belongs to people: no operator's object made it, and none takes it away. One that later names it shares it.
-- p_project: {"id", "name", "slug"|null, "rootPath"|null, "metadata"}. Returns NULL where the team has one of that name.
-- CM100: the key is bound to a project.
CREATE FUNCTION commonplace.create_project_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_project jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made commonplace.projects;
BEGIN
    IF p_key_project IS NOT NULL THEN
        RAISE EXCEPTION 'Project-scoped API keys cannot create projects' USING ERRCODE = 'CM100';
    END IF;
    PERFORM set_config('app.team_id', p_team_id::text, true);
    INSERT INTO commonplace.projects (id, team_id, name, slug, root_path, metadata)
    VALUES ((p_project ->> 'id')::uuid, p_team_id, p_project ->> 'name', p_project ->> 'slug', p_project ->> 'rootPath',
        p_project -> 'metadata')
    ON CONFLICT (team_id, name) DO NOTHING RETURNING * INTO made;
    IF made.id IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, made.id, p_key_id, p_actor, p_request_id, 'project.create', 'project', made.id::text,
        jsonb_build_object('name', made.name, 'requestId', p_request_id));
    RETURN commonplace.project_json(made);
END
$$;

-- One project by id or name, or NULL. CM100: the key is bound to another.
CREATE FUNCTION commonplace.get_project_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_project text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    IF meant IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'project.read', 'project', meant::text,
        jsonb_build_object('requestId', p_request_id));
    RETURN (SELECT commonplace.project_json(p) FROM commonplace.projects p WHERE p.team_id = p_team_id AND p.id = meant);
END
$$;

-- A memory as a resource: what recall tells of it, and what only its keepers care about.
CREATE FUNCTION commonplace.memory_resource(m commonplace.memories) RETURNS jsonb LANGUAGE sql STABLE
RETURN commonplace.memory_json(m) || jsonb_build_object('score', NULL, 'tags', m.tags, 'importance', m.importance,
    'visibility', m.visibility, 'actor', m.owner_actor, 'supersededBy', m.superseded_by,
    'validFromEpoch', commonplace.epoch_ms(m.valid_from), 'validToEpoch', commonplace.epoch_ms(m.valid_to));

-- About how much of an answer a memory is. Neither figure unpacks what is stored apart.
CREATE FUNCTION commonplace.answer_bytes(m commonplace.memories) RETURNS bigint LANGUAGE sql STABLE
RETURN octet_length(m.content) + octet_length(coalesce(m.title, '')) + 4 * (pg_column_size(m.metadata) + pg_column_size(m.tags));

-- Those of the ids, in their order, that one answer takes: up to 8 MB, and always the first. Whoever answers holds all of it.
CREATE FUNCTION commonplace.answerable(p_team_id uuid, p_ids uuid[]) RETURNS uuid[] LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(id ORDER BY place) FROM (
        SELECT hit.id, hit.place, sum(one.bytes) OVER (ORDER BY hit.place) AS bytes
        FROM unnest(p_ids) WITH ORDINALITY AS hit (id, place) CROSS JOIN LATERAL (SELECT commonplace.answer_bytes(m) AS bytes
            FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.id = hit.id OFFSET 0) AS one) AS measured
    WHERE place = 1 OR bytes <= 8000000
$$;

-- One memory, or NULL. p_action: what audit calls the read.
CREATE FUNCTION commonplace.get_memory_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_memory_id text, p_action text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_id uuid;
    found_project uuid;
    answer jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT m.id, m.project_id, commonplace.memory_resource(m) INTO found_id, found_project, answer FROM commonplace.memories m
    WHERE m.team_id = p_team_id AND m.id = commonplace.uuid_or_null(p_memory_id)
        AND (p_key_project IS NULL OR m.project_id = p_key_project) AND (m.visibility = 'team' OR m.owner_actor = p_actor);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, found_project, p_key_id, p_actor, p_request_id, p_action, 'observation', found_id::text,
        jsonb_build_object('mode', 'get', 'resultCount', 1, 'observationIds', jsonb_build_array(found_id), 'requestId', p_request_id));
    RETURN answer;
END
$$;

-- Memories that the actor may see, newest first, and about how much of an answer each is. p_wanted and p_before as in
-- list_memories_v1; p_project_id NULL: every project. Whatever the planner knows of the table, it reads one of the indexes in the
-- order of numbers (SET enable_…), and knows which conditions there are (custom plans; not in list_memories_v1 itself, for what
-- that calls would be planned anew for each memory).
CREATE FUNCTION commonplace.find_memories(p_team_id uuid, p_project_id uuid, p_actor text, p_wanted jsonb, p_before integer,
    p_limit integer)
RETURNS TABLE (memory_id uuid, memory_number integer, bytes bigint) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    wanted_kind text := p_wanted ->> 'kind';
    wanted_session uuid := commonplace.uuid_or_null(p_wanted ->> 'session');
    is_of_session boolean := p_wanted ->> 'session' IS NOT NULL;
    wanted_actor text := p_wanted ->> 'actor';
    wanted_tag text := p_wanted ->> 'tag';
    wanted_visibility text := p_wanted ->> 'visibility';
    since timestamptz := (p_wanted ->> 'since')::timestamptz;
    until timestamptz := (p_wanted ->> 'until')::timestamptz;
    with_superseded boolean := coalesce((p_wanted ->> 'superseded')::boolean, false);
BEGIN
    RETURN QUERY SELECT m.id, m.number, commonplace.answer_bytes(m)
        FROM commonplace.memories m
        WHERE m.team_id = p_team_id AND (p_project_id IS NULL OR m.project_id = p_project_id)
            AND (m.visibility = 'team' OR m.owner_actor = p_actor)
            AND (with_superseded OR m.superseded_by IS NULL) AND (p_before IS NULL OR m.number < p_before)
            AND (wanted_kind IS NULL OR m.kind = wanted_kind) AND (NOT is_of_session OR m.session_id = wanted_session)
            AND (wanted_actor IS NULL OR m.owner_actor = wanted_actor)
            AND (wanted_tag IS NULL OR wanted_tag = ANY (m.tags))
            AND (wanted_visibility IS NULL OR m.visibility = wanted_visibility)
            AND (since IS NULL OR m.created_at >= since) AND (until IS NULL OR m.created_at < until)
        ORDER BY m.number DESC LIMIT p_limit;
END
$$;

-- A page of memories, newest first, and its audit row. p_wanted: {"project" (id or name), "kind", "session", "actor", "tag",
-- "visibility", "since", "until" (made at or after, made before), "superseded": true for those too}, each may be absent or null;
-- without a project: all that the key reaches. p_before: number of the last memory of the page before.
-- Returns {"memories", "last": number of the last one, where there are more}. A page ends early at 8 MB.
-- CM100: the key is bound to another project. One that the team does not have holds nothing.
CREATE FUNCTION commonplace.list_memories_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_wanted jsonb, p_before integer, p_limit integer)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid := p_key_project;
    is_known boolean := true;
    ids uuid[] := '{}';
    page jsonb;
    has_more boolean;
    last integer;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_wanted ->> 'project' IS NOT NULL THEN
        meant := commonplace.resolve_project(p_team_id, p_key_project, p_wanted ->> 'project', 0);
        is_known := meant IS NOT NULL;
    END IF;
    IF is_known THEN
        SELECT coalesce(array_agg(memory_id ORDER BY memory_number DESC) FILTER (WHERE is_shown), '{}'), bool_or(NOT is_shown),
            min(memory_number) FILTER (WHERE is_shown)
        INTO ids, has_more, last FROM (
            SELECT memory_id, memory_number, row_number() OVER newest = 1
                OR (row_number() OVER newest <= p_limit AND sum(bytes) OVER newest <= 8000000) AS is_shown
            FROM commonplace.find_memories(p_team_id, meant, p_actor, p_wanted, p_before, p_limit + 1)
            WINDOW newest AS (ORDER BY memory_number DESC)) AS judged;
    END IF;
    -- OFFSET 0: each by its id, whatever the planner would rather read all of.
    SELECT coalesce(jsonb_agg(resource ORDER BY place), '[]') INTO page FROM unnest(ids) WITH ORDINALITY AS shown (id, place)
        CROSS JOIN LATERAL (SELECT commonplace.memory_resource(m) AS resource FROM commonplace.memories m
            WHERE m.team_id = p_team_id AND m.id = shown.id OFFSET 0) AS read;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'memory.list', 'observation', jsonb_strip_nulls(p_wanted)
        || jsonb_build_object('limit', p_limit, 'resultCount', cardinality(ids), 'observationIds', to_jsonb(ids),
            'requestId', p_request_id));
    RETURN jsonb_build_object('memories', page, 'last', CASE WHEN has_more THEN last END);
END
$$;

-- The memory within reach, locked against a change by somebody else; an empty row where there is none.
CREATE FUNCTION commonplace.hold_memory(p_team_id uuid, p_key_project uuid, p_actor text, p_memory_id text) RETURNS commonplace.memories
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held commonplace.memories;
BEGIN
    SELECT * INTO held FROM commonplace.memories WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_memory_id)
        AND (p_key_project IS NULL OR project_id = p_key_project) AND (visibility = 'team' OR owner_actor = p_actor)
        FOR NO KEY UPDATE;
    RETURN held;
END
$$;

-- One at a time in a team: two that each see nothing of the other could close a circle.
CREATE FUNCTION commonplace.lock_successions(p_team_id uuid) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_advisory_xact_lock(hashtextextended('commonplace.successions:' || p_team_id, 0)) $$;

-- Why p_old may not be superseded by the memory p_new_id, or NULL where it may: missing, elsewhere (in another project),
-- itself, unchanged (it is already by that one), superseded (by another), hidden (what the team sees would give way to what one
-- actor sees), circle. Under the lock of lock_successions.
CREATE FUNCTION commonplace.refuse_succession(p_old commonplace.memories, p_new_id uuid, p_project_id uuid, p_visibility text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN p_old.id IS NULL THEN 'missing'
        WHEN p_old.project_id <> p_project_id THEN 'elsewhere'
        WHEN p_old.id = p_new_id THEN 'itself'
        WHEN p_old.superseded_by = p_new_id THEN 'unchanged'
        WHEN p_old.superseded_by IS NOT NULL THEN 'superseded'
        WHEN p_old.visibility = 'team' AND p_visibility = 'private' THEN 'hidden'
        WHEN p_old.id IN (
            WITH RECURSIVE chain AS (
                SELECT m.superseded_by AS id FROM commonplace.memories m WHERE m.team_id = p_old.team_id AND m.id = p_new_id
                UNION
                SELECT m.superseded_by FROM chain JOIN commonplace.memories m ON m.team_id = p_old.team_id AND m.id = chain.id)
            SELECT id FROM chain WHERE id IS NOT NULL) THEN 'circle'
    END;
END
$$;

-- Marks p_old as superseded, with its audit row. Refusals come before.
CREATE FUNCTION commonplace.mark_superseded(p_key_id uuid, p_actor text, p_request_id text, p_via text, p_old commonplace.memories,
    p_new_id uuid)
RETURNS commonplace.memories LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    marked commonplace.memories;
BEGIN
    UPDATE commonplace.memories SET superseded_by = p_new_id, valid_to = least(valid_to, now()), updated_at = clock_timestamp()
        WHERE team_id = p_old.team_id AND id = p_old.id RETURNING * INTO marked;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_old.team_id, p_old.project_id, p_key_id, p_actor, p_request_id, 'memory.supersede', 'observation', p_old.id::text,
        jsonb_strip_nulls(jsonb_build_object('supersededBy', p_new_id, 'via', p_via, 'requestId', p_request_id)));
    RETURN marked;
END
$$;

-- Stores a memory, and with "supersedes" puts it in the place of that one, whose project it then takes where it names none.
-- p_memory: {"id", "project"|null, "session"|null, "kind", "title"|null, "content", "metadata", "tags", "keywords",
--   "importance"|null, "visibility"|null, "validFrom"|null, "validTo"|null, "supersedes"|null}. No visibility: the team's default;
-- but what takes the place of a private memory stays private.
-- Returns {"outcome": created, "memory", "superseded"|null}, or {"outcome": as of refuse_succession}.
-- CM100: a project or session out of the key's reach. CM101: no project.
CREATE FUNCTION commonplace.create_memory_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_via text, p_memory jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old commonplace.memories;
    made commonplace.memories;
    meant uuid;
    linked uuid;
    adopted_visibility text;
    refusal text;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_memory ->> 'supersedes' IS NOT NULL THEN
        PERFORM commonplace.lock_successions(p_team_id);
        old := commonplace.hold_memory(p_team_id, p_key_project, p_actor, p_memory ->> 'supersedes');
        IF old.id IS NULL THEN
            RETURN jsonb_build_object('outcome', 'missing');
        END IF;
    END IF;
    meant := commonplace.resolve_project(p_team_id, p_key_project, coalesce(p_memory ->> 'project', old.project_id::text), 0);
    IF meant IS NULL THEN
        RAISE EXCEPTION 'project_id must belong to team_id' USING ERRCODE = 'CM100';
    END IF;
    linked := commonplace.link_session(p_team_id, meant, jsonb_build_object('serverSessionId', p_memory -> 'session'));
    SELECT coalesce(p_memory ->> 'visibility', CASE old.visibility WHEN 'private' THEN 'private' END, default_visibility, 'team')
        INTO adopted_visibility FROM commonplace.teams WHERE id = p_team_id;
    IF old.id IS NOT NULL THEN
        refusal := commonplace.refuse_succession(old, (p_memory ->> 'id')::uuid, meant, adopted_visibility);
        IF refusal IS NOT NULL THEN
            RETURN jsonb_build_object('outcome', refusal);
        END IF;
    END IF;
    INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, kind, title, content, metadata,
        tags, keywords, importance, valid_from, valid_to, author_key_id)
    VALUES ((p_memory ->> 'id')::uuid, p_team_id, meant, linked, p_actor, adopted_visibility, p_memory ->> 'kind',
        p_memory ->> 'title', p_memory ->> 'content', p_memory -> 'metadata',
        ARRAY(SELECT jsonb_array_elements_text(p_memory -> 'tags')), ARRAY(SELECT jsonb_array_elements_text(p_memory -> 'keywords')),
        coalesce((p_memory ->> 'importance')::real, 0.5), (p_memory ->> 'validFrom')::timestamptz,
        (p_memory ->> 'validTo')::timestamptz, p_key_id)
    RETURNING * INTO made;
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'memory.write', 'observation', made.id::text,
        jsonb_strip_nulls(jsonb_build_object('kind', made.kind, 'visibility', made.visibility, 'via', p_via, 'requestId', p_request_id)));
    IF old.id IS NOT NULL THEN
        old := commonplace.mark_superseded(p_key_id, p_actor, p_request_id, p_via, old, made.id);
    END IF;
    RETURN jsonb_build_object('outcome', 'created', 'memory', commonplace.memory_resource(made),
        'superseded', CASE WHEN old.id IS NOT NULL THEN commonplace.memory_resource(old) END);
END
$$;

-- Puts a memory that is there in the place of another of its project. Asked again: nothing changes.
-- Returns {"outcome": superseded_now|unchanged, "memory", "superseded"}, {"outcome": no_successor: none within reach in that
-- project, or as of refuse_succession}; NULL where the one to supersede is not there.
CREATE FUNCTION commonplace.supersede_memory_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_via text, p_memory_id text, p_by text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old commonplace.memories;
    successor commonplace.memories;
    refusal text;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    PERFORM commonplace.lock_successions(p_team_id);
    old := commonplace.hold_memory(p_team_id, p_key_project, p_actor, p_memory_id);
    IF old.id IS NULL THEN
        RETURN NULL;
    END IF;
    successor := commonplace.hold_memory(p_team_id, p_key_project, p_actor, p_by);
    IF successor.id IS NULL OR successor.project_id <> old.project_id THEN
        RETURN jsonb_build_object('outcome', 'no_successor');
    END IF;
    refusal := commonplace.refuse_succession(old, successor.id, successor.project_id, successor.visibility);
    IF refusal IS NULL THEN
        old := commonplace.mark_superseded(p_key_id, p_actor, p_request_id, p_via, old, successor.id);
    ELSIF refusal <> 'unchanged' THEN
        RETURN jsonb_build_object('outcome', refusal);
    END IF;
    RETURN jsonb_build_object('outcome', coalesce(refusal, 'superseded_now'), 'memory', commonplace.memory_resource(successor),
        'superseded', commonplace.memory_resource(old));
END
$$;

-- Changes what p_changes names, as create_memory_v1 names it, null to clear it; "metadata" is laid over what is there key by
-- key, and a key with null goes; "clearMetadata": true begins with none. Nothing different: nothing is written but the audit row,
-- which has the names of what changed.
-- Returns {"outcome": updated, "memory"}, {"outcome": project: it would change, validity: it would end before it begins, metadata: it
-- would have more than 10 MiB, or as of refuse_succession}; NULL where there is none. CM100: a session out of reach, or the visibility of what another actor wrote.
CREATE FUNCTION commonplace.update_memory_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_via text, p_memory_id text, p_changes jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held commonplace.memories;
    after commonplace.memories;
    old commonplace.memories;
    refusal text := 'unchanged';
    changed text[];
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_changes ->> 'supersedes' IS NOT NULL OR p_changes ->> 'visibility' = 'private' THEN
        PERFORM commonplace.lock_successions(p_team_id);
    END IF;
    held := commonplace.hold_memory(p_team_id, p_key_project, p_actor, p_memory_id);
    IF held.id IS NULL THEN
        RETURN NULL;
    ELSIF p_changes ? 'project' AND NOT EXISTS (SELECT FROM commonplace.projects WHERE team_id = p_team_id AND id = held.project_id
            AND (id = commonplace.uuid_or_null(p_changes ->> 'project') OR name = p_changes ->> 'project')) THEN
        RETURN jsonb_build_object('outcome', 'project');
    END IF;
    after := held;
    IF p_changes ? 'session' THEN
        after.session_id := commonplace.link_session(p_team_id, held.project_id,
            jsonb_build_object('serverSessionId', p_changes -> 'session'));
    END IF;
    after.kind := coalesce(p_changes ->> 'kind', held.kind);
    after.content := coalesce(p_changes ->> 'content', held.content);
    after.visibility := coalesce(p_changes ->> 'visibility', held.visibility);
    after.title := CASE WHEN p_changes ? 'title' THEN p_changes ->> 'title' ELSE held.title END;
    after.importance := CASE WHEN p_changes ? 'importance' THEN coalesce((p_changes ->> 'importance')::real, 0.5) ELSE held.importance END;
    after.valid_from := CASE WHEN p_changes ? 'validFrom' THEN (p_changes ->> 'validFrom')::timestamptz ELSE held.valid_from END;
    after.valid_to := CASE WHEN p_changes ? 'validTo' THEN (p_changes ->> 'validTo')::timestamptz ELSE held.valid_to END;
    IF p_changes ?| ARRAY['metadata', 'clearMetadata'] THEN
        after.metadata := (CASE WHEN p_changes ? 'clearMetadata' OR jsonb_typeof(held.metadata) <> 'object' THEN '{}' ELSE held.metadata END
            || coalesce(p_changes -> 'metadata', '{}'))
            - ARRAY(SELECT key FROM jsonb_each(coalesce(p_changes -> 'metadata', '{}')) WHERE value = 'null');
    END IF;
    IF p_changes ? 'metadata' AND octet_length(after.metadata::text) > 10485760 THEN
        RETURN jsonb_build_object('outcome', 'metadata');
    END IF;
    IF p_changes ? 'tags' THEN
        after.tags := ARRAY(SELECT jsonb_array_elements_text(p_changes -> 'tags'));
    END IF;
    IF p_changes ? 'keywords' THEN
        after.keywords := ARRAY(SELECT jsonb_array_elements_text(p_changes -> 'keywords'));
    END IF;
    IF after.valid_to < after.valid_from AND (after.valid_from, after.valid_to) IS DISTINCT FROM (held.valid_from, held.valid_to) THEN
        RETURN jsonb_build_object('outcome', 'validity');
    ELSIF after.visibility <> held.visibility THEN
        IF held.owner_actor <> p_actor THEN
            RAISE EXCEPTION 'only the actor who wrote a memory may change its visibility' USING ERRCODE = 'CM100';
        ELSIF after.visibility = 'private' AND EXISTS (SELECT FROM commonplace.memories WHERE team_id = p_team_id
                AND superseded_by = held.id AND visibility = 'team') THEN
            RETURN jsonb_build_object('outcome', 'hidden');
        END IF;
    END IF;
    IF p_changes ->> 'supersedes' IS NOT NULL THEN
        old := commonplace.hold_memory(p_team_id, p_key_project, p_actor, p_changes ->> 'supersedes');
        refusal := commonplace.refuse_succession(old, held.id, held.project_id, after.visibility);
        IF refusal <> 'unchanged' THEN
            RETURN jsonb_build_object('outcome', refusal);
        END IF;
    END IF;
    IF after IS DISTINCT FROM held THEN
        UPDATE commonplace.memories SET session_id = after.session_id, kind = after.kind, title = after.title, content = after.content,
            visibility = after.visibility, importance = after.importance, valid_from = after.valid_from, valid_to = after.valid_to,
            metadata = after.metadata, tags = after.tags, keywords = after.keywords, updated_at = clock_timestamp()
        WHERE team_id = p_team_id AND id = held.id RETURNING * INTO after;
    END IF;
    IF refusal IS NULL THEN
        PERFORM commonplace.mark_superseded(p_key_id, p_actor, p_request_id, p_via, old, held.id);
    END IF;
    changed := ARRAY(SELECT key FROM jsonb_each(commonplace.memory_resource(after)) AS a JOIN jsonb_each(commonplace.memory_resource(held)) AS b
        USING (key) WHERE a.value <> b.value AND key <> 'updatedAtEpoch' ORDER BY key);
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, held.project_id, p_key_id, p_actor, p_request_id, 'memory.update', 'observation', held.id::text,
        jsonb_strip_nulls(jsonb_build_object('changed', to_jsonb(changed), 'via', p_via, 'requestId', p_request_id)));
    RETURN jsonb_build_object('outcome', 'updated', 'memory', commonplace.memory_resource(after));
END
$$;

-- Whether an actor may see a raw event, which says what its memories say: not where one of them is private to somebody else, nor, of
-- what others captured, where the team's memories are private by default.
CREATE FUNCTION commonplace.may_see_event(p_team_id uuid, p_actor text, p_event_id uuid, p_event_actor text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_event_actor = p_actor OR NOT (
        EXISTS (SELECT FROM commonplace.teams t WHERE t.id = p_team_id AND t.default_visibility = 'private')
        OR EXISTS (SELECT FROM commonplace.memory_sources s JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = s.memory_id
            WHERE s.team_id = p_team_id AND s.event_id = p_event_id AND m.visibility = 'private' AND m.owner_actor <> p_actor))
$$;

-- One event of the team in the shape of the wire, or NULL for none that the actor may see.
CREATE FUNCTION commonplace.get_event_v2(p_team_id uuid, p_actor text, p_event_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT commonplace.event_json(e) FROM commonplace.events e
            WHERE e.team_id = p_team_id AND e.id = commonplace.uuid_or_null(p_event_id)
                AND commonplace.may_see_event(p_team_id, p_actor, e.id, e.actor));
END
$$;

-- What was made of an event and the caller may see, oldest first, each with the link that tells of its making; NULL for no such
-- event. CM100: it is of another project than the key's.
CREATE FUNCTION commonplace.event_observations_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_event_id text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event record;
    answer jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    SELECT id, project_id INTO event FROM commonplace.events WHERE team_id = p_team_id AND id = commonplace.uuid_or_null(p_event_id);
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF event.project_id <> p_key_project THEN
        RAISE EXCEPTION 'API key is scoped to a different project' USING ERRCODE = 'CM100';
    END IF;
    -- A link has no id of its own: this one is made of what names it, and stays.
    SELECT coalesce(jsonb_agg(commonplace.memory_resource(m) || jsonb_build_object('generationKey', m.generation_key,
            'createdByJobId', m.job_id, 'source', jsonb_build_object('id', md5(s.memory_id || s.source_type || s.source_id)::uuid,
                'sourceType', s.source_type, 'sourceId', s.source_id, 'generationJobId', s.job_id,
                'createdAtEpoch', commonplace.epoch_ms(s.created_at))) ORDER BY m.number, s.source_type, s.source_id), '[]')
    INTO answer FROM commonplace.memory_sources s JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = s.memory_id
    WHERE s.team_id = p_team_id AND s.event_id = event.id AND m.id = ANY (commonplace.answerable(p_team_id, ARRAY(
        SELECT seen.id FROM commonplace.memory_sources made JOIN commonplace.memories seen ON seen.team_id = p_team_id
            AND seen.id = made.memory_id
        WHERE made.team_id = p_team_id AND made.event_id = event.id AND (seen.visibility = 'team' OR seen.owner_actor = p_actor)
        ORDER BY seen.number)));
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, event.project_id, p_key_id, p_actor, p_request_id, 'observation.read', 'observation',
        jsonb_build_object('mode', 'event_observations', 'eventId', event.id, 'resultCount', jsonb_array_length(answer),
            'observationIds', jsonb_path_query_array(answer, '$[*].id'), 'requestId', p_request_id));
    RETURN jsonb_build_object('eventId', event.id, 'observations', answer);
END
$$;

-- A session as an actor is shown it. Where the team's memories are private by default, a prompt is its asker's alone, and the list
-- of prompts, which may be of several, is nobody's.
CREATE FUNCTION commonplace.shown_session(s commonplace.sessions, p_actor text) RETURNS commonplace.sessions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF s.prompt_actor IS NOT NULL AND EXISTS (
        SELECT FROM commonplace.teams t WHERE t.id = s.team_id AND t.default_visibility = 'private') THEN
        s.metadata := s.metadata - 'prompts' - CASE WHEN s.prompt_actor = p_actor THEN '' ELSE 'prompt' END;
    END IF;
    RETURN s;
END
$$;

-- One session of the team in the shape of the wire, as the actor is shown it, or NULL.
CREATE FUNCTION commonplace.get_session_v2(p_team_id uuid, p_actor text, p_session_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    RETURN (SELECT commonplace.session_json(commonplace.shown_session(s, p_actor)) FROM commonplace.sessions s
            WHERE s.team_id = p_team_id AND s.id = commonplace.uuid_or_null(p_session_id));
END
$$;

-- So do the answers to a start and an end.
DO $$
DECLARE
    named regprocedure;
    known text;
    changed text;
BEGIN
    FOREACH named IN ARRAY ARRAY['commonplace.start_session_v1(uuid, uuid, uuid, text, text, jsonb)'::regprocedure,
        'commonplace.end_session_v1(uuid, uuid, uuid, text, text, text, uuid)']
    LOOP
        known := pg_get_functiondef(named);
        changed := regexp_replace(known, 'commonplace\.session_json\((started|ended)\)',
            'commonplace.session_json(commonplace.shown_session(\1, p_actor))');
        IF changed = known THEN
            RAISE EXCEPTION '% is not what this migration knows', named;
        END IF;
        EXECUTE changed;
    END LOOP;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.shown_session(commonplace.sessions, text),
    commonplace.get_session_v2(uuid, text, text),
    commonplace.project_json(commonplace.projects),
    commonplace.list_projects_v1(uuid, uuid, uuid, text, text, text, integer),
    commonplace.create_project_v1(uuid, uuid, uuid, text, text, jsonb),
    commonplace.get_project_v1(uuid, uuid, uuid, text, text, text),
    commonplace.memory_resource(commonplace.memories),
    commonplace.answer_bytes(commonplace.memories),
    commonplace.answerable(uuid, uuid[]),
    commonplace.get_memory_v1(uuid, uuid, uuid, text, text, text, text),
    commonplace.find_memories(uuid, uuid, text, jsonb, integer, integer),
    commonplace.list_memories_v1(uuid, uuid, uuid, text, text, jsonb, integer, integer),
    commonplace.hold_memory(uuid, uuid, text, text),
    commonplace.lock_successions(uuid),
    commonplace.refuse_succession(commonplace.memories, uuid, uuid, text),
    commonplace.mark_superseded(uuid, text, text, text, commonplace.memories, uuid),
    commonplace.create_memory_v1(uuid, uuid, uuid, text, text, text, jsonb),
    commonplace.supersede_memory_v1(uuid, uuid, uuid, text, text, text, text, text),
    commonplace.update_memory_v1(uuid, uuid, uuid, text, text, text, text, jsonb),
    commonplace.may_see_event(uuid, text, uuid, text),
    commonplace.get_event_v2(uuid, text, text),
    commonplace.event_observations_v1(uuid, uuid, uuid, text, text, text)
TO commonplace_runtime;
