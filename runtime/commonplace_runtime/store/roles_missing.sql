-- What roles.sql and the log-ins of a database still lack, as the statements that would make it.

-- group_statements --
-- Rows in the order in which they must run; none when the group roles and grants suffice for a migration.
WITH groups (place, name) AS (
    VALUES (1, 'commonplace_owner'), (2, 'commonplace_runtime'), (3, 'commonplace_operator'), (4, 'commonplace_admin')),
known AS (SELECT rolname AS name, oid FROM pg_catalog.pg_roles),
owner AS (SELECT oid FROM known WHERE name = 'commonplace_owner')
SELECT statement FROM (
    SELECT place, format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name) AS statement
    FROM groups WHERE name NOT IN (SELECT name FROM known)
    UNION ALL
    SELECT 5, 'GRANT commonplace_owner TO commonplace_admin'
    WHERE NOT EXISTS (
        SELECT FROM owner, known WHERE known.name = 'commonplace_admin' AND pg_has_role(known.oid, owner.oid, 'MEMBER'))
    UNION ALL
    SELECT 6, format('GRANT commonplace_owner TO %I', current_user)
    WHERE NOT EXISTS (SELECT FROM owner WHERE pg_has_role(owner.oid, 'SET'))
    UNION ALL
    SELECT 7, format('GRANT CREATE ON DATABASE %I TO commonplace_owner', current_database())
    WHERE NOT EXISTS (SELECT FROM owner WHERE has_database_privilege(owner.oid, current_database(), 'CREATE'))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'commonplace')
) AS wanted ORDER BY place;

-- is_served_role --
-- Whether the current role is a runtime's or an operator's: such a one must never become the owner.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_roles
    WHERE rolname IN ('commonplace_runtime', 'commonplace_operator') AND pg_has_role(oid, 'USAGE'))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper);

-- may_own --
-- Whether the current role may act as the owner of the schema.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_roles WHERE rolname = 'commonplace_owner' AND pg_has_role(oid, 'SET'));

-- login_statements --
-- $1 log-in role, $2 group role, $3 password or its verifier, NULL for none, $4 whether it can log in already.
WITH login AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text),
team AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $2::text),
words AS (SELECT CASE WHEN $3::text IS NULL THEN '' ELSE format(' PASSWORD %L', $3::text) END AS password)
SELECT statement FROM (
    SELECT 1 AS place, format('CREATE ROLE %I LOGIN NOBYPASSRLS%s IN ROLE %I', $1::text, password, $2::text) AS statement
    FROM words WHERE NOT EXISTS (SELECT FROM login)
    UNION ALL
    SELECT 2, format('ALTER ROLE %I LOGIN%s', $1::text, password)
    FROM words WHERE EXISTS (SELECT FROM login) AND NOT $4::boolean
    UNION ALL
    SELECT 3, format('GRANT %I TO %I WITH INHERIT TRUE', $2::text, $1::text)
    WHERE EXISTS (SELECT FROM login)
        AND NOT EXISTS (SELECT FROM login, team WHERE pg_has_role(login.oid, team.oid, 'USAGE'))
    UNION ALL
    SELECT 4, format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1::text)
    WHERE NOT has_database_privilege('public', current_database(), 'CONNECT')
        AND NOT EXISTS (SELECT FROM login WHERE has_database_privilege(oid, current_database(), 'CONNECT'))
) AS wanted ORDER BY place;

-- is_powerful --
-- $1 log-in role. Whether it is ourselves or may do more than serve, so that we must not change it.
SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolname = current_user
    OR EXISTS (
        SELECT FROM pg_catalog.pg_roles AS owner
        WHERE owner.rolname = 'commonplace_owner' AND pg_has_role(login.oid, owner.oid, 'MEMBER'))
FROM pg_catalog.pg_roles AS login WHERE rolname = $1::text;

-- is_strangers --
-- $1 log-in role, $2 group role. Whether it exists and nothing says that it was ever meant for us: another program's, maybe.
SELECT NOT starts_with(rolname, 'commonplace_') AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_roles AS team WHERE team.rolname = $2::text AND pg_has_role(login.oid, team.oid, 'MEMBER'))
FROM pg_catalog.pg_roles AS login WHERE rolname = $1::text;

-- own_facts --
-- $1 group role. Whether the current role has its rights, and those of the schema's owner. No row: there is no such group.
SELECT pg_has_role(team.oid, 'USAGE') AS is_member,
    EXISTS (
        SELECT FROM pg_catalog.pg_roles AS owner
        WHERE owner.rolname = 'commonplace_owner' AND pg_has_role(owner.oid, 'MEMBER'))
    OR (SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user) AS is_owner
FROM pg_catalog.pg_roles AS team WHERE team.rolname = $1::text;
