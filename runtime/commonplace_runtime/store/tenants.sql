-- Teams, projects and keys as an administrator handles them: as a member of commonplace_admin, across teams.
-- Rows made here carry no owner_uid: they belong to people, and no operator touches them.

-- insert_team --
-- $1 id, $2 slug, $3 name. No row when the slug is taken.
INSERT INTO commonplace.teams (id, slug, name) VALUES ($1, $2, $3)
ON CONFLICT (slug) DO NOTHING
RETURNING id, slug, name, owner_uid IS NOT NULL AS managed, detached_at, created_at;

-- find_team --
-- $1 id, slug or name as text. An id or a slug wins over a name; more than one row: the name is ambiguous.
SELECT id, slug, name, owner_uid IS NOT NULL AS managed, detached_at, created_at
FROM commonplace.teams WHERE id::text = $1 OR slug = $1 OR name = $1
ORDER BY (id::text = $1 OR slug = $1) DESC, created_at LIMIT 2;

-- list_teams --
SELECT id, slug, name, owner_uid IS NOT NULL AS managed, detached_at, created_at
FROM commonplace.teams ORDER BY slug;

-- insert_project --
-- $1 id, $2 team, $3 name. No row when the team has a project of that name.
INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, $3)
ON CONFLICT (team_id, name) DO NOTHING
RETURNING id, team_id, name, created_at;

-- find_project --
-- $1 team, $2 id or name as text.
SELECT id, team_id, name, created_at
FROM commonplace.projects WHERE team_id = $1 AND (id::text = $2 OR name = $2)
ORDER BY id::text = $2 DESC LIMIT 1;

-- list_projects --
-- $1 team, or NULL for all.
SELECT id, team_id, name, created_at
FROM commonplace.projects WHERE $1::uuid IS NULL OR team_id = $1 ORDER BY team_id, name;

-- insert_key --
-- $1 id, $2 team, $3 project or NULL, $4 name, $5 actor, $6 scopes, $7 token id, $8 token hash, $9 expiry or NULL.
INSERT INTO commonplace.api_keys (id, team_id, project_id, name, actor, scopes, token_id, token_hash, state, expires_at, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'published', $9, now());

-- list_keys --
-- $1 team, or NULL for all.
SELECT id, team_id, project_id, name, actor, scopes, state, expires_at, last_used_at, revoked_at,
    owner_uid IS NOT NULL AS managed, created_at
FROM commonplace.api_keys WHERE $1::uuid IS NULL OR team_id = $1 ORDER BY team_id, created_at;

-- revoke_key --
-- $1 id. No row: there is no such key. A key that is revoked already stays as it is.
WITH known AS (
    SELECT id, team_id, state <> 'revoked' AS live, owner_uid IS NOT NULL AS managed
    FROM commonplace.api_keys WHERE id = $1 FOR UPDATE),
gone AS (
    UPDATE commonplace.api_keys k SET state = 'revoked', revoked_at = now(), updated_at = now()
    FROM known WHERE k.id = known.id AND known.live)
SELECT team_id, live, managed FROM known;

-- audit --
-- $1 team, $2 action, $3 resource type, $4 resource id, $5 details.
INSERT INTO commonplace.audit_log (team_id, actor, action, resource_type, resource_id, details)
VALUES ($1, 'human:administrator', $2, $3, $4, $5);

-- key_is_live --
-- $1 token hash.
SELECT EXISTS (SELECT FROM commonplace.api_keys WHERE token_hash = $1 AND state = 'published');

-- login_statement --
-- $1 log-in role, $2 group role. The statement that creates the log-in; no row when it exists.
SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', $1::text, $2::text)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1);
