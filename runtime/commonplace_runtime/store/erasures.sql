-- Erasures: begun, gone on with, and taken over.

-- begin --
-- $1 team, $2 key or NULL, $3 project the key is bound to or NULL, $4 actor, $5 request id or NULL, $6 what is asked.
-- NULL: no such memory, session or project.
SELECT commonplace.begin_erasure_v1($1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::jsonb);

-- step --
-- $1 team, $2 erasure, $3 lease token, $4 rows, $5 seconds that the lease is kept for.
SELECT commonplace.erase_step_v1($1::uuid, $2::uuid, $3::bigint, $4::integer, $5::integer);

-- resume --
-- $1 seconds that the lease is kept for. NULL: nothing was left behind.
SELECT commonplace.resume_erasure_v1($1::integer);
