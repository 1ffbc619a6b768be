-- What was used.

-- read --
-- $1 team, $2 project the key is bound to or NULL.
SELECT commonplace.usage_v1($1::uuid, $2::uuid);
