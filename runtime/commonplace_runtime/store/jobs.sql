-- claim --
-- $1 worker, $2 lease_seconds, $3 max_jobs, $4 the team served last, $5 credentials. One session's due jobs, leased; null
-- when nothing is due.
SELECT commonplace.claim_v1($1::text, $2::integer, $3::integer, $4::uuid, $5::text[]);

-- next_team --
-- $1 the team served last. Null: the first one.
SELECT commonplace.next_team_v1($1::uuid);

-- reserve --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 what the call may cost.
SELECT commonplace.reserve_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::jsonb);

-- pause --
-- $1 credential, $2 seconds, $3 reason. A longer pause that is known already stays.
INSERT INTO commonplace.provider_pauses AS known (credential, paused_until, reason)
VALUES ($1::text, now() + make_interval(secs => $2::double precision), $3::text)
ON CONFLICT (credential) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason, updated_at = now()
    WHERE known.paused_until < excluded.paused_until;

-- extend_lease --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 lease_seconds. False when the lease was lost.
SELECT commonplace.extend_lease_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::integer);

-- complete --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 results.
SELECT commonplace.complete_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::jsonb);

-- fail --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token, $5 failures.
SELECT commonplace.fail_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint, $5::jsonb);

-- count_lost --
-- $1 team_id, $2 project_id, $3 key_id or null, $4 spent.
SELECT commonplace.count_lost_v1($1::uuid, $2::uuid, $3::uuid, $4::jsonb);

-- release --
-- $1 team_id, $2 project_id, $3 session_key, $4 lease_token. False when the lease was lost.
SELECT commonplace.release_jobs_v1($1::uuid, $2::uuid, $3::text, $4::bigint);

-- queue_stats --
SELECT commonplace.queue_stats_v1();

-- housekeeping --
-- $1 batch. Null while another worker is at it.
SELECT commonplace.housekeeping_v1($1::integer);
