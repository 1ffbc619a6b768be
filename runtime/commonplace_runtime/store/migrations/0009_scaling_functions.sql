-- The queue team by team, for the operator that scales the workers; and of how many sessions the backlog is, how many sessions
-- have a worker's slot, and at what rate jobs go on arriving: a burst is told of by the backlog already.

-- The plans must not depend on what the tables held when the functions were first called: hence the SETs.

-- A worker's time for one job, tries that failed included: mean of the newest 200 that were completed in the last hour, or NULL.
CREATE FUNCTION commonplace.mean_service_seconds() RETURNS double precision LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT avg(service_seconds) FROM (
        SELECT service_seconds FROM (
            (SELECT completed_at, service_seconds FROM commonplace.jobs WHERE status = 'completed'
                AND source_type = 'agent_event' AND completed_at > now() - interval '1 hour' ORDER BY completed_at DESC LIMIT 200)
            UNION ALL
            (SELECT completed_at, service_seconds FROM commonplace.jobs WHERE status = 'completed'
                AND source_type = 'session_summary' AND completed_at > now() - interval '1 hour' ORDER BY completed_at DESC LIMIT 200)
        ) AS newest ORDER BY completed_at DESC LIMIT 200) AS measured
$$;

-- Where the last minute's six parts begin, as the least ids made then, oldest first.
CREATE FUNCTION commonplace.minute_parts() RETURNS uuid[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(commonplace.first_id_of(now() - make_interval(secs => 10 * part)) ORDER BY part DESC) FROM generate_series(1, 6) AS part
$$;

-- Jobs a second by the counts of the last minute's six parts: their median, which a burst does not move.
CREATE FUNCTION commonplace.steady_rate(p_counts bigint[]) RETURNS double precision LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY jobs) / 10.0 FROM unnest(p_counts) AS jobs
$$;

-- See queue_stats_v1, which now also gives "sessions": those of the backlog, "busySessions": those under a lease, and "steadyRate":
-- jobs a second, the median of the last minute's six parts.
CREATE OR REPLACE FUNCTION commonplace.queue_figures() RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT jsonb_build_object(
        'backlog', due.backlog, 'sessions', due.sessions, 'oldestSeconds', coalesce(extract(epoch FROM now() - due.oldest), 0),
        'inFlight', running.jobs, 'busySessions', running.sessions, 'workers', running.workers,
        'serviceSeconds', commonplace.mean_service_seconds(),
        'arrivalRate', arrived.jobs / 60.0, 'steadyRate', commonplace.steady_rate(arrived.parts))
    -- A group that is due has a job at least, whatever its count says.
    FROM (SELECT coalesce(sum(greatest(waiting, 1)), 0) AS backlog, count(*) AS sessions, min(available_at) AS oldest FROM (
            SELECT waiting, available_at FROM commonplace.job_groups
            WHERE available_at <= now() AND team_id NOT IN (SELECT commonplace.resting_teams())
            ORDER BY available_at LIMIT 100000) AS claimable) AS due,
        (SELECT count(*) AS jobs, count(DISTINCT (j.team_id, j.project_id, j.session_key)) AS sessions, count(DISTINCT j.locked_by) AS workers
            FROM (SELECT team_id, project_id, session_key, locked_by FROM commonplace.jobs WHERE status = 'processing' LIMIT 100000) AS j
                JOIN commonplace.job_groups g USING (team_id, project_id, session_key)
            WHERE g.lease_until > now()) AS running,
        (SELECT count(*) AS jobs, ARRAY[count(*) FILTER (WHERE part <= 1), count(*) FILTER (WHERE part = 2), count(*) FILTER (WHERE part = 3),
                count(*) FILTER (WHERE part = 4), count(*) FILTER (WHERE part = 5), count(*) FILTER (WHERE part = 6)] AS parts
            FROM (SELECT width_bucket(id, (SELECT commonplace.minute_parts())) AS part FROM commonplace.jobs
                WHERE id >= commonplace.first_id_of(now() - interval '60 s') AND team_id NOT IN (SELECT commonplace.resting_teams())
                LIMIT 100000) AS young) AS arrived
$$;

-- See queue_by_team_v1.
CREATE FUNCTION commonplace.team_figures(p_most_teams integer) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH claimable AS (
        SELECT team_id, waiting, available_at FROM commonplace.job_groups
        WHERE available_at <= now() AND team_id NOT IN (SELECT commonplace.resting_teams())
        ORDER BY available_at LIMIT 100000),
    running AS (
        SELECT j.team_id, j.project_id, j.session_key, j.locked_by
        FROM (SELECT team_id, project_id, session_key, locked_by FROM commonplace.jobs WHERE status = 'processing' LIMIT 100000) AS j
            JOIN commonplace.job_groups g USING (team_id, project_id, session_key)
        WHERE g.lease_until > now()),
    arrived AS (
        SELECT team_id, count(*) AS jobs, ARRAY[count(*) FILTER (WHERE part <= 1), count(*) FILTER (WHERE part = 2),
            count(*) FILTER (WHERE part = 3), count(*) FILTER (WHERE part = 4), count(*) FILTER (WHERE part = 5),
            count(*) FILTER (WHERE part = 6)] AS parts
        FROM (SELECT team_id, width_bucket(id, (SELECT commonplace.minute_parts())) AS part FROM commonplace.jobs
            WHERE id >= commonplace.first_id_of(now() - interval '60 s') AND team_id NOT IN (SELECT commonplace.resting_teams())
            LIMIT 100000) AS young
        GROUP BY team_id),
    counted AS (
        SELECT team_id, sum(backlog)::bigint AS backlog, sum(sessions)::bigint AS sessions, sum(busy)::bigint AS busy,
            sum(in_flight)::bigint AS in_flight, sum(arrivals)::bigint AS arrivals, sum(steady) AS steady, min(oldest) AS oldest
        FROM (
            -- A group that is due has a job at least, whatever its count says.
            SELECT team_id, sum(greatest(waiting, 1)) AS backlog, count(*) AS sessions, 0 AS busy, 0 AS in_flight, 0 AS arrivals,
                0.0::double precision AS steady, min(available_at) AS oldest FROM claimable GROUP BY team_id
            UNION ALL SELECT team_id, 0, 0, count(DISTINCT (project_id, session_key)), count(*), 0, 0, NULL FROM running GROUP BY team_id
            UNION ALL SELECT team_id, 0, 0, 0, 0, jobs, commonplace.steady_rate(parts), NULL FROM arrived) AS parts
        GROUP BY team_id),
    ranked AS (
        SELECT *, coalesce(extract(epoch FROM now() - oldest), 0) AS oldest_seconds,
            row_number() OVER (ORDER BY backlog + in_flight DESC, arrivals DESC, team_id) AS place FROM counted)
    SELECT jsonb_build_object(
        'now', now(), 'serviceSeconds', commonplace.mean_service_seconds(),
        'workers', (SELECT coalesce(jsonb_object_agg(locked_by, jobs), '{}') FROM (
            SELECT locked_by, count(*) AS jobs FROM running GROUP BY locked_by ORDER BY jobs DESC LIMIT 10000) AS busy),
        'teams', (SELECT coalesce(jsonb_agg(jsonb_build_object('teamId', t.id, 'slug', t.slug, 'ownerUid', t.owner_uid,
                'backlog', r.backlog, 'sessions', r.sessions, 'oldestSeconds', r.oldest_seconds, 'busySessions', r.busy,
                'inFlight', r.in_flight, 'arrivalRate', r.arrivals / 60.0, 'steadyRate', r.steady, 'workers', l.workers) ORDER BY r.place), '[]')
            FROM ranked r JOIN commonplace.teams t ON t.id = r.team_id LEFT JOIN commonplace.team_limits l ON l.team_id = r.team_id
            WHERE r.place <= p_most_teams),
        'others', (SELECT jsonb_build_object('teams', count(*), 'backlog', coalesce(sum(backlog), 0), 'sessions', coalesce(sum(sessions), 0),
                'oldestSeconds', coalesce(max(oldest_seconds), 0), 'busySessions', coalesce(sum(busy), 0),
                'inFlight', coalesce(sum(in_flight), 0), 'arrivalRate', coalesce(sum(arrivals), 0) / 60.0,
                'steadyRate', coalesce(sum(steady), 0))
            FROM ranked WHERE place > p_most_teams))
$$;

-- The queue of this database, team by team, for whoever scales its workers. p_generation, p_owner_uid: of the MemoryRuntime.
-- Returns {"now", "serviceSeconds": as in queue_stats_v1, "workers": {process that holds a lease: its jobs},
-- "teams": [{"teamId", "slug", "ownerUid", "backlog": jobs of the sessions that may be claimed now, "sessions": how many those
-- are, "oldestSeconds": how long the one that has waited longest might have been, "busySessions", "inFlight": sessions under a
-- lease and their jobs that are worked on, "arrivalRate": jobs a second over the last minute, "steadyRate": median of its six
-- parts, "workers": the limit of its Quotas or null}], "others": the same summed over the teams past the busiest 1,000, and
-- "teams": how many those are}. Teams with nothing of it are left out; of a team that is held or detached only what is in flight
-- counts. Counting stops at 100,000 sessions, jobs or arrivals.
CREATE FUNCTION commonplace.queue_by_team_v1(p_installation text, p_term bigint, p_generation bigint, p_owner_uid text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM commonplace.fence(p_installation, p_term);
    RETURN commonplace.team_figures(1000);
END
$$;

GRANT EXECUTE ON FUNCTION commonplace.queue_by_team_v1(text, bigint, bigint, text) TO commonplace_operator;
