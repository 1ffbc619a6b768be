-- Projects as resources.

-- list --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 name to begin after or NULL, $7 limit.
SELECT commonplace.list_projects_v1($1, $2, $3, $4, $5, $6, $7);

-- create --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 project. NULL: the name is taken.
SELECT commonplace.create_project_v1($1, $2, $3, $4, $5, $6);

-- get --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 id or name. NULL: no such project.
SELECT commonplace.get_project_v1($1, $2, $3, $4, $5, $6);
