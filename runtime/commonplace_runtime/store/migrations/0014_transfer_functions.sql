-- Export and import: what a stream of lines reads and writes, a page or a batch in each transaction.
-- Locks against writes: memories

-- Memories of an import that were superseded by one that has not come yet.
CREATE TABLE commonplace.awaited_links (
    team_id    uuid NOT NULL,
    memory_id  uuid NOT NULL,
    wanted     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, memory_id),
    FOREIGN KEY (team_id, memory_id) REFERENCES commonplace.memories (team_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN commonplace.awaited_links.wanted IS 'The successor''s id as its file names it.';
CREATE INDEX awaited_links_wanted ON commonplace.awaited_links (team_id, wanted);

DO $$
BEGIN
    ALTER TABLE commonplace.awaited_links ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY team_only ON commonplace.awaited_links TO commonplace_runtime
        USING (team_id = (SELECT nullif(current_setting('app.team_id', true), '')::uuid))
        WITH CHECK (team_id = (SELECT nullif(current_setting('app.team_id', true), '')::uuid));
    CREATE POLICY owner_all ON commonplace.awaited_links TO commonplace_owner USING (true) WITH CHECK (true);
END
$$;
GRANT SELECT, INSERT, UPDATE, DELETE ON commonplace.awaited_links TO commonplace_runtime;

-- One row about a whole export. Of an import each batch has its own, in its own transaction.
CREATE FUNCTION commonplace.audit_transfer_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_action text, p_project_id uuid, p_details jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, details)
    VALUES (p_team_id, coalesce(p_project_id, p_key_project), p_key_id, p_actor, p_request_id, p_action, 'memory',
        p_details || jsonb_build_object('requestId', p_request_id));
END
$$;

-- What an export will go through, and its first audit row. p_project: id or name; NULL is every project that the key reaches.
-- Returns {"team": {"id", "slug", "name"}, "nowEpoch", "projects": [{"id", "name", "memories", "events": the newest numbers}]} in the
-- order of the projects' ids, or NULL where there is no such project.
CREATE FUNCTION commonplace.begin_export_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_project text, p_details jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meant uuid := p_key_project;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_project IS NOT NULL THEN
        meant := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
        IF meant IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM commonplace.audit_transfer_v1(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, 'memory.export', meant, p_details);
    RETURN (SELECT jsonb_build_object('team', jsonb_build_object('id', t.id, 'slug', t.slug, 'name', t.name),
            'nowEpoch', commonplace.epoch_ms(now()),
            'projects', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'name', p.name,
                    'memories', (SELECT m.number FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.project_id = p.id
                        ORDER BY m.number DESC LIMIT 1),
                    'events', (SELECT e.number FROM commonplace.events e WHERE e.team_id = p_team_id AND e.project_id = p.id
                        ORDER BY e.number DESC LIMIT 1)) ORDER BY p.id), '[]')
                FROM commonplace.projects p WHERE p.team_id = p_team_id AND (meant IS NULL OR p.id = meant)))
        FROM commonplace.teams t WHERE t.id = p_team_id);
END
$$;

-- One line of an export each. p_project is the project's name. What a sealed secret hides is in none.
CREATE FUNCTION commonplace.memory_line(p_memory commonplace.memories, p_project text, p_sources boolean, p_sessions boolean)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT row_to_json(line)::text FROM (SELECT 'memory' AS type, p_memory.id AS id, p_project AS project, p_memory.kind AS kind,
        p_memory.title AS title, p_memory.content AS content, p_memory.metadata AS metadata, p_memory.tags AS tags,
        p_memory.keywords AS keywords, p_memory.importance AS importance, p_memory.visibility AS visibility,
        p_memory.owner_actor AS actor, CASE WHEN p_sessions THEN p_memory.session_id END AS session,
        p_memory.superseded_by AS "supersededBy", commonplace.epoch_ms(p_memory.valid_from) AS "validFromEpoch",
        commonplace.epoch_ms(p_memory.valid_to) AS "validToEpoch", p_memory.model AS model,
        commonplace.epoch_ms(p_memory.created_at) AS "createdAtEpoch", commonplace.epoch_ms(p_memory.updated_at) AS "updatedAtEpoch",
        CASE WHEN p_sources THEN (SELECT coalesce(json_agg(json_build_object('sourceType', s.source_type, 'sourceId', s.source_id,
                'createdAtEpoch', commonplace.epoch_ms(s.created_at))
                ORDER BY commonplace.epoch_ms(s.created_at), s.source_type, s.source_id), '[]')
            FROM commonplace.memory_sources s WHERE s.team_id = p_memory.team_id AND s.memory_id = p_memory.id) END AS sources) AS line
$$;

CREATE FUNCTION commonplace.event_line(p_event commonplace.events, p_project text)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT row_to_json(line)::text FROM (SELECT 'event' AS type, p_event.id AS id, p_project AS project, p_event.session_id AS session,
        p_event.content_session_id AS "contentSessionId", p_event.source_adapter AS "sourceAdapter",
        p_event.source_event_id AS "sourceEventId", p_event.event_type AS "eventType", p_event.platform_source AS "platformSource",
        p_event.actor AS actor, p_event.payload AS payload, p_event.metadata AS metadata, p_event.private_parts AS "privateParts",
        p_event.redacted_secrets AS "redactedSecrets", commonplace.epoch_ms(p_event.occurred_at) AS "occurredAtEpoch",
        commonplace.epoch_ms(p_event.received_at) AS "receivedAtEpoch", commonplace.epoch_ms(p_event.created_at) AS "createdAtEpoch") AS line
$$;

CREATE FUNCTION commonplace.session_line(p_session commonplace.sessions, p_project text)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT row_to_json(line)::text FROM (SELECT 'session' AS type, p_session.id AS id, p_project AS project,
        p_session.external_session_id AS "externalSessionId", p_session.content_session_id AS "contentSessionId",
        p_session.agent_id AS "agentId", p_session.agent_type AS "agentType", p_session.platform_source AS "platformSource",
        p_session.identity AS identity, p_session.metadata AS metadata,
        commonplace.epoch_ms(p_session.started_at) AS "startedAtEpoch", commonplace.epoch_ms(p_session.ended_at) AS "endedAtEpoch",
        commonplace.epoch_ms(p_session.last_generated_at) AS "lastGeneratedAtEpoch",
        commonplace.epoch_ms(p_session.created_at) AS "createdAtEpoch", commonplace.epoch_ms(p_session.updated_at) AS "updatedAtEpoch") AS line
$$;

-- The next lines of one project in the order of arrival: (place, line); the last row's place is where the next page begins, its line
-- may be NULL; no row: there is nothing more. A page ends after p_rows rows that were looked at, or with the line that makes it longer
-- than p_bytes: each line is made only when its turn comes, so a page of large rows costs no more than a page.
-- p_kind: memories, events, sessions. p_after: a place, '' for the beginning. p_until: the newest number to go to, of sessions none.
-- p_since: changed (events: received) at or after. p_all: private memories of others too, for administrators.
-- A raw event says what its memory says: those of others' private memories are left out, and all of others where the team's
-- memories are private by default.
CREATE FUNCTION commonplace.export_page_v1(p_team_id uuid, p_actor text, p_project_id uuid, p_project text, p_kind text, p_after text,
    p_until bigint, p_since timestamptz, p_sources boolean, p_sessions boolean, p_all boolean, p_rows integer, p_bytes integer)
RETURNS TABLE (place text, line text) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    memory commonplace.memories;
    event commonplace.events;
    session commonplace.sessions;
    sent bigint := 0;
    is_private boolean;
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_kind = 'memories' THEN
        FOR memory IN SELECT * FROM commonplace.memories m WHERE m.team_id = p_team_id AND m.project_id = p_project_id
                AND m.number > coalesce(nullif(p_after, '')::bigint, 0) AND m.number <= p_until ORDER BY m.number LIMIT p_rows
        LOOP
            place := memory.number;
            line := NULL;
            IF (p_all OR memory.visibility = 'team' OR memory.owner_actor = p_actor)
                AND (p_since IS NULL OR memory.updated_at >= p_since) THEN
                line := commonplace.memory_line(memory, p_project, p_sources, p_sessions);
                sent := sent + octet_length(line);
                RETURN NEXT;
            END IF;
            EXIT WHEN sent >= p_bytes;
        END LOOP;
    ELSIF p_kind = 'events' THEN
        SELECT coalesce(t.default_visibility = 'private', false) INTO is_private FROM commonplace.teams t WHERE t.id = p_team_id;
        FOR event IN SELECT * FROM commonplace.events e WHERE e.team_id = p_team_id AND e.project_id = p_project_id
                AND e.number > coalesce(nullif(p_after, '')::bigint, 0) AND e.number <= p_until ORDER BY e.number LIMIT p_rows
        LOOP
            place := event.number;
            line := NULL;
            IF (p_since IS NULL OR event.received_at >= p_since) AND (p_all OR event.actor = p_actor OR NOT (is_private OR EXISTS (
                SELECT FROM commonplace.memory_sources s JOIN commonplace.memories m ON m.team_id = p_team_id AND m.id = s.memory_id
                WHERE s.team_id = p_team_id AND s.event_id = event.id AND m.visibility = 'private' AND m.owner_actor <> p_actor))) THEN
                line := commonplace.event_line(event, p_project);
                sent := sent + octet_length(line);
                RETURN NEXT;
            END IF;
            EXIT WHEN sent >= p_bytes;
        END LOOP;
    ELSE
        FOR session IN SELECT * FROM commonplace.sessions s WHERE s.team_id = p_team_id AND s.project_id = p_project_id
                AND s.id > coalesce(nullif(p_after, '')::uuid, '00000000-0000-0000-0000-000000000000') ORDER BY s.id LIMIT p_rows
        LOOP
            place := session.id;
            line := NULL;
            IF p_since IS NULL OR session.updated_at >= p_since THEN
                line := commonplace.session_line(CASE WHEN p_all THEN session ELSE commonplace.shown_session(session, p_actor) END,
                    p_project);
                sent := sent + octet_length(line);
                RETURN NEXT;
            END IF;
            EXIT WHEN sent >= p_bytes;
        END LOOP;
    END IF;
    IF place IS NOT NULL AND line IS NULL THEN
        RETURN NEXT;
    END IF;
END
$$;

-- A UUID of RFC 9562's version 8 that is always the same for the same text.
CREATE FUNCTION commonplace.named_id(p_text text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(set_byte(set_byte(hash, 6, get_byte(hash, 6) & 15 | 128), 8, get_byte(hash, 8) & 63 | 128), 'hex')::uuid
    FROM (SELECT substr(sha256(convert_to(p_text, 'UTF8')), 1, 16) AS hash) AS hashed
$$;

-- The ids that a line of an import may have here, the best first: its own; where that is somebody else's, one that is always the
-- same in this project; and where that is another actor's private one, one that is the same for this actor.
CREATE FUNCTION commonplace.import_ids(p_team_id uuid, p_project_id uuid, p_actor text, p_given text) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_remove(ARRAY[commonplace.uuid_or_null(p_given),
        commonplace.named_id(jsonb_build_array('import', p_team_id, p_project_id, p_given)::text),
        commonplace.named_id(jsonb_build_array('import', p_team_id, p_project_id, p_given, p_actor)::text)], NULL)
$$;

-- The first of these that the project has and p_actor may see. OFFSET 0, here and below: while a table is small, the index of the
-- project looks as good as the id's own, and the plan is kept while it grows.
CREATE FUNCTION commonplace.imported_memory(p_team_id uuid, p_project_id uuid, p_actor text, p_ids uuid[]) RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.id FROM unnest(p_ids) WITH ORDINALITY AS candidate (id, place)
    CROSS JOIN LATERAL (SELECT * FROM commonplace.memories WHERE team_id = p_team_id AND id = candidate.id OFFSET 0) AS m
    WHERE m.project_id = p_project_id AND (m.visibility = 'team' OR m.owner_actor = p_actor) ORDER BY candidate.place LIMIT 1
$$;

CREATE FUNCTION commonplace.imported_event(p_team_id uuid, p_project_id uuid, p_ids uuid[]) RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.id FROM unnest(p_ids) WITH ORDINALITY AS candidate (id, place)
    CROSS JOIN LATERAL (SELECT * FROM commonplace.events WHERE team_id = p_team_id AND id = candidate.id OFFSET 0) AS e
    WHERE e.project_id = p_project_id ORDER BY candidate.place LIMIT 1
$$;

CREATE FUNCTION commonplace.imported_session(p_team_id uuid, p_project_id uuid, p_ids uuid[]) RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.id FROM unnest(p_ids) WITH ORDINALITY AS candidate (id, place)
    CROSS JOIN LATERAL (SELECT * FROM commonplace.sessions WHERE team_id = p_team_id AND id = candidate.id OFFSET 0) AS s
    WHERE s.project_id = p_project_id ORDER BY candidate.place LIMIT 1
$$;

CREATE FUNCTION commonplace.from_epoch_ms(p_ms text) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_timestamp(p_ms::bigint / 1000.0);

CREATE FUNCTION commonplace.texts_of(p_list jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT jsonb_array_elements_text(p_list));

-- p_memory is superseded by p_successor, unless it is already, or that would go round in a circle, or would hide from the team
-- what only one actor sees. Returns whether it became so.
CREATE FUNCTION commonplace.link_imported(p_team_id uuid, p_memory uuid, p_successor uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE commonplace.memories m SET superseded_by = p_successor
    WHERE m.team_id = p_team_id AND m.id = p_memory AND m.superseded_by IS NULL AND p_memory <> p_successor
        AND EXISTS (SELECT FROM commonplace.memories t WHERE t.team_id = p_team_id AND t.id = p_successor
            AND t.project_id = m.project_id AND (t.visibility = 'team' OR t.owner_actor = m.owner_actor))
        AND NOT EXISTS (
            WITH RECURSIVE chain (id) AS (
                SELECT p_successor
                UNION
                SELECT c.superseded_by FROM chain JOIN commonplace.memories c ON c.team_id = p_team_id AND c.id = chain.id
                WHERE c.superseded_by IS NOT NULL)
            SELECT FROM chain WHERE chain.id = p_memory);
    RETURN FOUND;
END
$$;

-- Where a memory's line says that it came from. A source that is here too is linked; any other keeps its id.
CREATE FUNCTION commonplace.import_sources(p_team_id uuid, p_project_id uuid, p_actor text, p_memory uuid, p_sources jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO commonplace.memory_sources AS known (memory_id, team_id, source_type, source_id, event_id, created_at)
    SELECT DISTINCT ON (source ->> 'sourceType', id) p_memory, p_team_id, source ->> 'sourceType', id, event_id,
        coalesce(commonplace.from_epoch_ms(source ->> 'createdAtEpoch'), clock_timestamp())
    FROM jsonb_array_elements(p_sources) AS source
    CROSS JOIN LATERAL (SELECT commonplace.import_ids(p_team_id, p_project_id, p_actor, source ->> 'sourceId') AS ids) AS possible
    CROSS JOIN LATERAL (SELECT
        CASE source ->> 'sourceType' WHEN 'agent_event' THEN commonplace.imported_event(p_team_id, p_project_id, ids) END AS event_id,
        CASE source ->> 'sourceType' WHEN 'session_summary' THEN commonplace.imported_session(p_team_id, p_project_id, ids) END AS session_id)
        AS found
    CROSS JOIN LATERAL (SELECT coalesce(event_id, session_id, ids[1]) AS id) AS chosen
    ORDER BY source ->> 'sourceType', id
    ON CONFLICT (memory_id, source_type, source_id) DO UPDATE SET event_id = excluded.event_id
        WHERE known.event_id IS NULL AND excluded.event_id IS NOT NULL
$$;

-- One memory of an import for the actor p_owner: imported, updated, unchanged, skipped (here it is newer), taken (no id is free).
CREATE FUNCTION commonplace.import_memory(p_team_id uuid, p_project_id uuid, p_key_id uuid, p_owner text, p_given jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[] := commonplace.import_ids(p_team_id, p_project_id, p_owner, p_given ->> 'id');
    chosen uuid := commonplace.imported_memory(p_team_id, p_project_id, p_owner, ids);
    candidate uuid;
    successor uuid;
    waiting uuid;
    known commonplace.memories;
    outcome text;
BEGIN
    IF chosen IS NULL THEN
        FOREACH candidate IN ARRAY ids LOOP
            INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, kind, title, content, metadata,
                tags, keywords, importance, valid_from, valid_to, author_key_id, model, created_at, updated_at)
            VALUES (candidate, p_team_id, p_project_id, commonplace.imported_session(p_team_id, p_project_id,
                    commonplace.import_ids(p_team_id, p_project_id, p_owner, p_given ->> 'session')), p_owner,
                coalesce(p_given ->> 'visibility', (SELECT default_visibility FROM commonplace.teams WHERE id = p_team_id), 'team'),
                p_given ->> 'kind', p_given ->> 'title', p_given ->> 'content', p_given -> 'metadata',
                commonplace.texts_of(p_given -> 'tags'), commonplace.texts_of(p_given -> 'keywords'), (p_given ->> 'importance')::real,
                commonplace.from_epoch_ms(p_given ->> 'validFrom'), commonplace.from_epoch_ms(p_given ->> 'validTo'), p_key_id,
                p_given ->> 'model', coalesce(commonplace.from_epoch_ms(p_given ->> 'createdAt'), clock_timestamp()),
                coalesce(commonplace.from_epoch_ms(p_given ->> 'updatedAt'), clock_timestamp()))
            ON CONFLICT DO NOTHING;
            IF FOUND THEN
                chosen := candidate;
                outcome := 'imported';
                EXIT;
            END IF;
            -- It may be the same line of an import beside this one, which was waited for.
            chosen := commonplace.imported_memory(p_team_id, p_project_id, p_owner, ARRAY[candidate]);
            EXIT WHEN chosen IS NOT NULL;
        END LOOP;
    END IF;
    IF chosen IS NULL THEN
        RETURN 'taken';
    END IF;
    IF outcome IS NULL THEN
        SELECT * INTO known FROM commonplace.memories WHERE team_id = p_team_id AND id = chosen FOR NO KEY UPDATE;
        IF (known.kind, known.title, known.content, known.metadata, known.tags, known.keywords, known.importance) IS NOT DISTINCT FROM
            (p_given ->> 'kind', p_given ->> 'title', p_given ->> 'content', p_given -> 'metadata', commonplace.texts_of(p_given -> 'tags'),
                commonplace.texts_of(p_given -> 'keywords'), (p_given ->> 'importance')::real)
            AND (commonplace.epoch_ms(known.valid_from), commonplace.epoch_ms(known.valid_to)) IS NOT DISTINCT FROM
                ((p_given ->> 'validFrom')::bigint, (p_given ->> 'validTo')::bigint) THEN
            outcome := 'unchanged';
        ELSIF (p_given ->> 'updatedAt')::bigint > commonplace.epoch_ms(known.updated_at) THEN
            UPDATE commonplace.memories SET kind = p_given ->> 'kind', title = p_given ->> 'title', content = p_given ->> 'content',
                metadata = p_given -> 'metadata', tags = commonplace.texts_of(p_given -> 'tags'),
                keywords = commonplace.texts_of(p_given -> 'keywords'), importance = (p_given ->> 'importance')::real,
                valid_from = commonplace.from_epoch_ms(p_given ->> 'validFrom'), valid_to = commonplace.from_epoch_ms(p_given ->> 'validTo'),
                updated_at = commonplace.from_epoch_ms(p_given ->> 'updatedAt')
            WHERE team_id = p_team_id AND id = chosen;
            outcome := 'updated';
        ELSE
            RETURN 'skipped';
        END IF;
    END IF;
    PERFORM commonplace.import_sources(p_team_id, p_project_id, p_owner, chosen, p_given -> 'sources');
    IF p_given ->> 'supersededBy' IS NOT NULL AND known.superseded_by IS NULL THEN
        successor := commonplace.imported_memory(p_team_id, p_project_id, p_owner,
            commonplace.import_ids(p_team_id, p_project_id, p_owner, p_given ->> 'supersededBy'));
        IF successor IS NULL THEN
            INSERT INTO commonplace.awaited_links AS l (team_id, memory_id, wanted)
            VALUES (p_team_id, chosen, p_given ->> 'supersededBy')
            ON CONFLICT (team_id, memory_id) DO UPDATE SET wanted = excluded.wanted WHERE l.wanted <> excluded.wanted;
        ELSIF commonplace.link_imported(p_team_id, chosen, successor) AND outcome = 'unchanged' THEN
            outcome := 'updated';
        END IF;
    END IF;
    FOR waiting IN SELECT l.memory_id FROM commonplace.awaited_links l
        WHERE l.team_id = p_team_id AND l.wanted = p_given ->> 'id' ORDER BY l.memory_id
    LOOP
        IF commonplace.link_imported(p_team_id, waiting, chosen) THEN
            DELETE FROM commonplace.awaited_links WHERE team_id = p_team_id AND memory_id = waiting;
        END IF;
    END LOOP;
    RETURN outcome;
END
$$;

-- One event of an import; nothing is generated from it again.
CREATE FUNCTION commonplace.import_event(p_team_id uuid, p_project_id uuid, p_key_id uuid, p_actor text, p_given jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[] := commonplace.import_ids(p_team_id, p_project_id, p_actor, p_given ->> 'id');
    chosen uuid := commonplace.imported_event(p_team_id, p_project_id, ids);
    candidate uuid;
BEGIN
    IF chosen IS NULL THEN
        FOREACH candidate IN ARRAY ids LOOP
            INSERT INTO commonplace.events (id, team_id, project_id, session_id, content_session_id, source_adapter, source_event_id,
                idempotency_key, event_type, platform_source, actor, key_id, payload, metadata, private_parts, redacted_secrets,
                occurred_at, received_at, created_at)
            VALUES (candidate, p_team_id, p_project_id, commonplace.imported_session(p_team_id, p_project_id,
                    commonplace.import_ids(p_team_id, p_project_id, p_actor, p_given ->> 'session')),
                p_given ->> 'contentSessionId', p_given ->> 'sourceAdapter', p_given ->> 'sourceEventId',
                p_project_id || ':import:' || candidate, p_given ->> 'eventType', p_given ->> 'platformSource', p_actor, p_key_id,
                p_given -> 'payload', p_given -> 'metadata', (p_given ->> 'privateParts')::integer,
                (p_given ->> 'redactedSecrets')::integer, commonplace.from_epoch_ms(p_given ->> 'occurredAt'),
                coalesce(commonplace.from_epoch_ms(p_given ->> 'receivedAt'), clock_timestamp()),
                coalesce(commonplace.from_epoch_ms(p_given ->> 'createdAt'), clock_timestamp()))
            ON CONFLICT DO NOTHING;
            IF FOUND THEN
                RETURN 'imported';
            END IF;
            chosen := commonplace.imported_event(p_team_id, p_project_id, ARRAY[candidate]);
            EXIT WHEN chosen IS NOT NULL;
        END LOOP;
    END IF;
    RETURN (SELECT CASE WHEN (event_type, payload, metadata) IS NOT DISTINCT FROM
            (p_given ->> 'eventType', p_given -> 'payload', p_given -> 'metadata') THEN 'unchanged' ELSE 'skipped' END
        FROM commonplace.events WHERE team_id = p_team_id AND id = chosen);
END
$$;

-- One session of an import. Where another one is what its client means by that name already, it stays so.
CREATE FUNCTION commonplace.import_session(p_team_id uuid, p_project_id uuid, p_actor text, p_given jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids uuid[] := commonplace.import_ids(p_team_id, p_project_id, p_actor, p_given ->> 'id');
    candidate uuid;
BEGIN
    IF commonplace.imported_session(p_team_id, p_project_id, ids) IS NOT NULL THEN
        RETURN 'unchanged';
    END IF;
    FOREACH candidate IN ARRAY ids LOOP
        INSERT INTO commonplace.sessions (id, team_id, project_id, external_session_id, content_session_id, agent_id, agent_type,
            platform_source, identity, metadata, started_at, ended_at, last_generated_at, created_at, updated_at)
        SELECT candidate, p_team_id, p_project_id, p_given ->> 'externalSessionId', p_given ->> 'contentSessionId',
            p_given ->> 'agentId', p_given ->> 'agentType', p_given ->> 'platformSource',
            CASE WHEN NOT EXISTS (SELECT FROM commonplace.sessions s WHERE s.team_id = p_team_id AND s.project_id = p_project_id
                AND s.identity = p_given ->> 'identity') THEN p_given ->> 'identity' END, p_given -> 'metadata',
            coalesce(commonplace.from_epoch_ms(p_given ->> 'startedAt'), clock_timestamp()),
            commonplace.from_epoch_ms(p_given ->> 'endedAt'), commonplace.from_epoch_ms(p_given ->> 'lastGeneratedAt'),
            coalesce(commonplace.from_epoch_ms(p_given ->> 'createdAt'), clock_timestamp()),
            coalesce(commonplace.from_epoch_ms(p_given ->> 'updatedAt'), clock_timestamp())
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN 'imported';
        ELSIF commonplace.imported_session(p_team_id, p_project_id, ARRAY[candidate]) IS NOT NULL THEN
            RETURN 'unchanged';
        END IF;
    END LOOP;
    RETURN 'taken';
END
$$;

-- The team's project of this name, made where it is missing.
CREATE FUNCTION commonplace.import_project(p_team_id uuid, p_key_id uuid, p_actor text, p_request_id text, p_name text) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_id uuid;
BEGIN
    SELECT id INTO found_id FROM commonplace.projects WHERE team_id = p_team_id AND name = p_name;
    IF found_id IS NULL THEN
        INSERT INTO commonplace.projects (id, team_id, name) VALUES (gen_random_uuid(), p_team_id, p_name)
        ON CONFLICT (team_id, name) DO NOTHING RETURNING id INTO found_id;
        IF found_id IS NULL THEN
            SELECT id INTO found_id FROM commonplace.projects WHERE team_id = p_team_id AND name = p_name;
        ELSE
            INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type, resource_id, details)
            VALUES (p_team_id, found_id, p_key_id, p_actor, p_request_id, 'project.create', 'project', found_id::text,
                jsonb_build_object('name', p_name, 'source', 'import', 'requestId', p_request_id));
        END IF;
    END IF;
    RETURN found_id;
END
$$;

-- Store a batch of lines, all or none, with one audit row.
-- p_project: id or name, where everything goes; NULL: a key of one project puts everything there, any other by each line's "project", which
-- is made where it is missing. p_is_admin: each line's "actor" stays the owner; else the caller becomes it.
-- p_records: [{"line", "type": memory|event|session, "project", "id", "actor"|null, …}] as domain/transfer.py makes them.
-- Returns {"outcomes": [{"line", "outcome": imported|updated|unchanged|skipped|taken}]} in their order, or NULL: there is no such project.
-- The plans of what it calls are made at the first line, when the tables may be empty: hence the SETs.
CREATE FUNCTION commonplace.import_v1(p_team_id uuid, p_key_id uuid, p_key_project uuid, p_actor text, p_request_id text,
    p_project text, p_is_admin boolean, p_records jsonb)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    given jsonb;
    everything_into uuid := p_key_project;
    target uuid;
    owner text;
    outcome text;
    outcomes jsonb[] := '{}';
BEGIN
    PERFORM set_config('app.team_id', p_team_id::text, true);
    IF p_project IS NOT NULL THEN
        everything_into := commonplace.resolve_project(p_team_id, p_key_project, p_project, 0);
        IF everything_into IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    FOR given IN SELECT value FROM jsonb_array_elements(p_records) LOOP
        target := coalesce(everything_into,
            commonplace.import_project(p_team_id, p_key_id, p_actor, p_request_id, given ->> 'project'));
        owner := CASE WHEN p_is_admin THEN coalesce(given ->> 'actor', p_actor) ELSE p_actor END;
        outcome := CASE given ->> 'type'
            WHEN 'memory' THEN commonplace.import_memory(p_team_id, target, p_key_id, owner, given)
            WHEN 'event' THEN commonplace.import_event(p_team_id, target, p_key_id, owner, given)
            ELSE commonplace.import_session(p_team_id, target, owner, given) END;
        outcomes := outcomes || jsonb_build_object('line', given -> 'line', 'outcome', coalesce(outcome, 'taken'));
    END LOOP;
    PERFORM commonplace.audit_transfer_v1(p_team_id, p_key_id, p_key_project, p_actor, p_request_id, 'memory.import', everything_into,
        jsonb_build_object('fromLine', p_records -> 0 -> 'line', 'toLine', p_records -> -1 -> 'line', 'counts',
            (SELECT coalesce(jsonb_object_agg(named, counted), '{}') FROM (
                SELECT one ->> 'outcome' AS named, count(*) AS counted FROM unnest(outcomes) AS one GROUP BY 1) AS grouped)));
    RETURN jsonb_build_object('outcomes', to_jsonb(outcomes));
END
$$;

GRANT EXECUTE ON FUNCTION
    commonplace.audit_transfer_v1(uuid, uuid, uuid, text, text, text, uuid, jsonb),
    commonplace.begin_export_v1(uuid, uuid, uuid, text, text, text, jsonb),
    commonplace.memory_line(commonplace.memories, text, boolean, boolean),
    commonplace.event_line(commonplace.events, text),
    commonplace.session_line(commonplace.sessions, text),
    commonplace.export_page_v1(uuid, text, uuid, text, text, text, bigint, timestamptz, boolean, boolean, boolean, integer, integer),
    commonplace.named_id(text),
    commonplace.import_ids(uuid, uuid, text, text),
    commonplace.imported_memory(uuid, uuid, text, uuid[]),
    commonplace.imported_event(uuid, uuid, uuid[]),
    commonplace.imported_session(uuid, uuid, uuid[]),
    commonplace.from_epoch_ms(text),
    commonplace.texts_of(jsonb),
    commonplace.link_imported(uuid, uuid, uuid),
    commonplace.import_sources(uuid, uuid, text, uuid, jsonb),
    commonplace.import_memory(uuid, uuid, uuid, text, jsonb),
    commonplace.import_event(uuid, uuid, uuid, text, jsonb),
    commonplace.import_session(uuid, uuid, text, jsonb),
    commonplace.import_project(uuid, uuid, text, text, text),
    commonplace.import_v1(uuid, uuid, uuid, text, text, text, boolean, jsonb)
TO commonplace_runtime;
