-- Memories, as recall reads them and as resources.

-- recall --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 mode, $7 project id or name or NULL,
-- $8 query or NULL for the newest, $9 limit, $10 platform or NULL for all, $11 via or NULL, $12 to $14 the ranking's columns or NULL to
-- look for the words in the rows, $15 the question's words, $16 years, $17 months that it names. Audits.
SELECT id, project_id, session_id, kind, title, content, metadata, sources, score, created_ms, updated_ms FROM commonplace.recall_v2(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- search_parts --
-- $1 team, $2 key's project or NULL, $3 actor, $4 project id or name or NULL, $5 query.
SELECT part, index_no, number, data FROM commonplace.search_parts_v1($1, $2, $3, $4, $5);

-- get --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 memory id as it was given, $7 audit's action.
SELECT commonplace.get_memory_v1($1, $2, $3, $4, $5, $6, $7);

-- list --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 wanted, $7 number to begin below or NULL, $8 limit.
SELECT commonplace.list_memories_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- create --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 via or NULL, $7 memory.
SELECT commonplace.create_memory_v1($1, $2, $3, $4, $5, $6, $7);

-- update --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 via or NULL, $7 memory id as it was given, $8 changes.
SELECT commonplace.update_memory_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- supersede --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 via or NULL, $7 memory id, $8 its successor's id.
SELECT commonplace.supersede_memory_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- of_event --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 event id as it was given. NULL: no such event.
SELECT commonplace.event_observations_v1($1, $2, $3, $4, $5, $6);
