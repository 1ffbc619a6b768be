-- Search indexes that are built anew because somebody asks.

-- request --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 project id or name or NULL. NULL: no such project. Audits.
SELECT commonplace.request_rebuild_v1($1, $2, $3, $4, $5, $6);

-- state --
-- $1 team, $2 key's project or NULL, $3 project id or name or NULL. NULL: no such project.
SELECT commonplace.index_state_v1($1, $2, $3);
