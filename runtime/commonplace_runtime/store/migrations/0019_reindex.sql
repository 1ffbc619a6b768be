-- Rebuilding a project's search index on demand.
SELECT;
