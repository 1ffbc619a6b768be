-- The audit, as people read it.

-- list --
-- $1 team, $2 key, $3 the key's project, $4 actor, $5 request id, $6 what is wanted, $7 limit.
SELECT commonplace.list_audit_v1($1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7);
