-- Memories, as recall reads them.

-- recall --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 mode, $7 project id or name or NULL,
-- $8 query or NULL for the newest, $9 limit, $10 platform or NULL for all, $11 via or NULL. Audits.
SELECT commonplace.recall_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);
