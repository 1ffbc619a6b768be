-- Who belongs to a team, as an administrator handles it: as a member of commonplace_admin.

-- list --
-- $1 team, or NULL for all.
SELECT m.team_id, t.slug AS team, m.actor, m.role, t.owner_uid IS NOT NULL AS managed, m.created_at
FROM commonplace.team_members m JOIN commonplace.teams t ON t.id = m.team_id
WHERE $1::uuid IS NULL OR m.team_id = $1 ORDER BY t.slug, m.actor;

-- add --
-- $1 team, $2 actor, $3 role. No row when the actor is a member already.
INSERT INTO commonplace.team_members (team_id, actor, role) VALUES ($1, $2, $3)
ON CONFLICT (team_id, actor) DO NOTHING RETURNING actor, role;

-- set_role --
-- $1 team, $2 actor, $3 role. The role until now; no row when there is no such member.
UPDATE commonplace.team_members m SET role = $3
FROM (SELECT team_id, actor, role FROM commonplace.team_members WHERE team_id = $1 AND actor = $2 FOR UPDATE) AS before
WHERE m.team_id = before.team_id AND m.actor = before.actor RETURNING before.role;

-- remove --
-- $1 team, $2 actor. No row when there is no such member.
DELETE FROM commonplace.team_members WHERE team_id = $1 AND actor = $2 RETURNING role;
