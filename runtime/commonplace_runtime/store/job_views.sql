-- Jobs, as the api reads them.

-- get_jobs --
-- $1 team, $2 project the key is bound to or NULL, $3 job ids as they were given.
SELECT commonplace.get_jobs_v1($1, $2, $3);
