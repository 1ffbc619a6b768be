-- Jobs, as people and probes look at them.

-- get_jobs --
-- $1 team, $2 project the key is bound to or NULL, $3 job ids as they were given.
SELECT commonplace.get_jobs_v1($1, $2, $3);

-- show --
-- $1 team, $2 project the key is bound to or NULL, $3 job id as it was given. NULL for no such job.
SELECT commonplace.show_job_v1($1::uuid, $2::uuid, $3::text);

-- list --
-- $1 team, $2 key, $3 project the key is bound to or NULL, $4 actor, $5 request id, $6 mode, $7 project that is asked for or
-- NULL, $8 wanted, $9 limit, $10 offset, $11 with payload. NULL: no such project.
SELECT commonplace.list_jobs_v1($1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::text, $7::text, $8::jsonb, $9::integer,
    $10::integer, $11::boolean);

-- retry --
-- $1 team, $2 key or NULL, $3 project the key is bound to or NULL, $4 actor, $5 request id or NULL, $6 job id. NULL: no such job.
SELECT commonplace.retry_job_v1($1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::text);

-- retry_many --
-- $1 team, $2 key or NULL, $3 project the key is bound to or NULL, $4 actor, $5 request id or NULL, $6 wanted, $7 limit.
SELECT commonplace.retry_jobs_v1($1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::jsonb, $7::integer);

-- cancel --
-- $1 team, $2 key or NULL, $3 project the key is bound to or NULL, $4 actor, $5 request id or NULL, $6 job id. NULL: no such job.
SELECT commonplace.cancel_job_v1($1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::text);

-- lanes --
SELECT commonplace.queue_lanes_v1();

-- team_of_job --
-- $1 job id as it was given. For administrators: no row outside the caller's team.
SELECT team_id FROM commonplace.jobs WHERE id = commonplace.uuid_or_null($1::text);

-- list_everywhere --
-- $1 team or NULL for all, $2 project id or NULL, $3 wanted as in find_jobs, $4 limit. For administrators; newest first.
SELECT t.id AS team_id, t.slug AS team, p.name AS project, commonplace.job_json(j) AS job
FROM commonplace.teams t
CROSS JOIN LATERAL commonplace.find_jobs(t.id, $2::uuid, $3::jsonb, $4::integer) AS found (id)
JOIN commonplace.jobs j ON j.team_id = t.id AND j.id = found.id
JOIN commonplace.projects p ON p.team_id = t.id AND p.id = j.project_id
WHERE $1::uuid IS NULL OR t.id = $1::uuid
ORDER BY j.id DESC LIMIT $4::integer;
