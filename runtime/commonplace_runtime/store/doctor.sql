-- What `commonplace doctor` asks of the database, as a member of commonplace_admin.

-- unforced --
-- Tables of tenants without forced row-level security, or without the policy that closes them.
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'commonplace' AND c.relkind = 'r' AND (c.relname = 'teams' OR EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'team_id' AND NOT a.attisdropped))
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'team_only'))
ORDER BY 1;

-- missing_roles --
-- $1 the group roles. Those that do not exist, or pass row-level security.
SELECT name FROM unnest($1::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name AND NOT rolbypassrls AND NOT rolsuper) ORDER BY 1;

-- server_version --
SELECT current_setting('server_version') AS version, current_setting('server_version_num') AS number;
