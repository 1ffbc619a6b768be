-- claim --
-- $1 worker, $2 lease_seconds, $3 max_jobs. One session's due jobs, leased; null when nothing is due.
SELECT commonplace.claim_v1($1::text, $2::integer, $3::integer);

-- extend_lease --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 lease_seconds. False when the lease was lost.
SELECT commonplace.extend_lease_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::integer);

-- complete --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 results.
SELECT commonplace.complete_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::jsonb);

-- fail --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 failures.
SELECT commonplace.fail_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::jsonb);

-- release --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token. False when the lease was lost.
SELECT commonplace.release_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint);

-- queue_stats --
SELECT commonplace.queue_stats_v1();

-- housekeeping --
-- $1 batch. Null while another worker is at it.
SELECT commonplace.housekeeping_v1($1::integer);
