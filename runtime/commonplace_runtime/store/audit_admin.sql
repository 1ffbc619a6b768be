-- Audit across teams, for an administrator: as a member of commonplace_admin.

-- list --
-- $1 team or NULL, $2 project or NULL, $3 actor, $4 key, $5 action (a trailing * for all that begin so), $6 request id, $7 since,
-- $8 until, each NULL for any, $9 limit. Newest first.
SELECT a.id, a.team_id, t.slug AS team, a.project_id, p.name AS project, a.key_id, a.actor, a.action, a.resource_type, a.resource_id,
    a.request_id, a.details, a.created_at
FROM commonplace.audit_log a
JOIN commonplace.teams t ON t.id = a.team_id
LEFT JOIN commonplace.projects p ON p.id = a.project_id
WHERE ($1::uuid IS NULL OR a.team_id = $1) AND ($2::uuid IS NULL OR a.project_id = $2) AND ($3::text IS NULL OR a.actor = $3)
    AND ($4::uuid IS NULL OR a.key_id = $4)
    AND ($5::text IS NULL OR CASE WHEN right($5, 1) = '*' THEN starts_with(a.action, left($5, -1)) ELSE a.action = $5 END)
    AND ($6::text IS NULL OR a.request_id = $6) AND ($7::timestamptz IS NULL OR a.created_at >= $7)
    AND ($8::timestamptz IS NULL OR a.created_at < $8)
ORDER BY a.number DESC LIMIT $9;
