-- Sessions.

-- start --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 session.
SELECT commonplace.start_session_v1($1, $2, $3, $4, $5, $6);

-- get --
-- $1 team, $2 actor, $3 session id as it was given.
SELECT commonplace.get_session_v2($1, $2, $3);

-- end --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 session id as it was given, $7 id for a new job.
SELECT commonplace.end_session_v1($1, $2, $3, $4, $5, $6, $7);
