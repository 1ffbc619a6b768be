-- Building a project's search index anew because somebody asks: POST /v1/reindex and `commonplace reindex`.

-- How far the index of a project is: {"projectId", "status": idle|queued|rebuilding, "memories", "indexed", "queuedAtEpoch"|null}.
-- indexed: those that the rebuild has come to.
CREATE FUNCTION commonplace.index_state(p_team_id uuid, p_project_id uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH pending AS MATERIALIZED (
        SELECT rebuild_from, queued_at FROM commonplace.search_work
        WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from IS NOT NULL)
    SELECT jsonb_build_object('projectId', p_project_id,
        'status', CASE WHEN p.rebuild_from IS NULL THEN 'idle' WHEN p.rebuild_from <= 0 THEN 'queued' ELSE 'rebuilding' END,
        'memories', count(m.number),
        'indexed', count(m.number) FILTER (WHERE p.rebuild_from IS NULL OR m.number < p.rebuild_from),
        'queuedAtEpoch', commonplace.epoch_ms(p.queued_at))
    FROM (SELECT) AS one
    LEFT JOIN pending p ON true
    LEFT JOIN (SELECT number FROM commonplace.memories WHERE team_id = p_team_id AND project_id = p_project_id) AS m ON true
    GROUP BY p.rebuild_from, p.queued_at
$$;

-- The same for a key; p_project is an id or a name, NULL the key's own. NULL: no such project. CM100: the key is bound to another.
CREATE FUNCTION commonplace.index_state_v1(p_team_id uuid, p_key_project uuid, p_project text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    RETURN CASE WHEN meant IS NOT NULL THEN commonplace.index_state(p_team_id, meant) END;
END
$$;

-- Has the keeper build a project's index anew, and answers as index_state_v1 does. Nothing else happens here, whatever the size of
-- the project: from now on searches read the rows, and the keeper takes away what there is before it begins.
CREATE FUNCTION commonplace.request_rebuild_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_project text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid;
    is_new boolean;
    state jsonb;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
    IF meant IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from) VALUES (p_team_id, meant, -1)
    ON CONFLICT (team_id, project_id) WHERE rebuild_from IS NOT NULL DO NOTHING;
    is_new := FOUND;
    state := commonplace.index_state(p_team_id, meant);
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
    VALUES (p_team_id, meant, p_key_id, p_actor, p_request_id, 'index.rebuild_requested', 'project', meant::text,
        jsonb_build_object('memories', state -> 'memories', 'isNew', is_new, 'requestId', p_request_id));
    RETURN state;
END
$$;

-- Takes a project's indexes and tail away, whole or not at all: who has read the postings finds either all documents or no index.
-- Whoever calls this holds the project's index and has a short lock_timeout: a writer may hold a row that is to go and want the index
-- next (keep_index), and goes first.
CREATE FUNCTION commonplace.drop_indexes(p_team_id uuid, p_project_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM commonplace.search_indexes WHERE team_id = p_team_id AND project_id = p_project_id ORDER BY number FOR UPDATE;
    DELETE FROM commonplace.search_tail WHERE team_id = p_team_id AND project_id = p_project_id;
    DELETE FROM commonplace.search_indexes WHERE team_id = p_team_id AND project_id = p_project_id;
    UPDATE commonplace.search_work SET rebuild_from = 0 WHERE team_id = p_team_id AND project_id = p_project_id AND rebuild_from < 0;
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.index_state(uuid, uuid),
    commonplace.index_state_v1(uuid, uuid, text),
    commonplace.request_rebuild_v1(uuid, uuid, uuid, text, text, text),
    commonplace.drop_indexes(uuid, uuid)
TO commonplace_runtime;
