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

-- index_rebuilds --
-- Projects whose search index is to be built anew, and for how many seconds that has been so.
SELECT t.slug || '/' || p.name AS project, extract(epoch FROM now() - w.queued_at)::integer AS seconds
FROM commonplace.search_work w JOIN commonplace.teams t ON t.id = w.team_id JOIN commonplace.projects p ON p.id = w.project_id
WHERE w.rebuild_from IS NOT NULL ORDER BY w.queued_at LIMIT 100;

-- index_tails --
-- $1 how many. Projects of which more memories of one owner wait to be merged.
SELECT t.slug || '/' || p.name AS project, max(waiting) AS waiting
FROM (SELECT project_id, count(*) AS waiting FROM commonplace.search_tail GROUP BY project_id, owner_actor) AS tail
JOIN commonplace.projects p ON p.id = tail.project_id JOIN commonplace.teams t ON t.id = p.team_id
WHERE waiting > $1 GROUP BY p.id, t.slug ORDER BY 2 DESC LIMIT 100;

-- index_losses --
-- Projects of which one of the newest memories in the index has a word that the index does not have.
SELECT DISTINCT t.slug || '/' || p.name AS project
FROM (SELECT * FROM commonplace.search_indexes ORDER BY number DESC LIMIT 1000) AS i
JOIN commonplace.projects p ON p.id = i.project_id JOIN commonplace.teams t ON t.id = i.team_id
CROSS JOIN LATERAL (SELECT memory_id FROM commonplace.search_documents WHERE index_no = i.number ORDER BY docno DESC LIMIT 3) AS d
CROSS JOIN LATERAL (SELECT lexemes FROM commonplace.memories WHERE team_id = i.team_id AND id = d.memory_id OFFSET 0) AS m
CROSS JOIN LATERAL unnest(m.lexemes) AS word
WHERE NOT EXISTS (SELECT FROM commonplace.search_work w WHERE w.project_id = i.project_id AND w.rebuild_from IS NOT NULL)
    AND NOT EXISTS (SELECT FROM commonplace.search_postings s WHERE s.index_no = i.number AND s.term = commonplace.search_term(word.lexeme))
ORDER BY 1 LIMIT 100;
