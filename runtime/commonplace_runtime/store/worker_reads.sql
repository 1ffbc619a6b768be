-- Memories as claude-mem's hooks and tools read them from their worker. Every statement audits.
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id in each.

-- context --
-- $6 local names or NULL for all, $7 platform or NULL, $8 limit.
SELECT commonplace.context_inject_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- by_file --
-- $6 local names or NULL for all, $7 last parts of the paths, $8 whole paths, $9 endings, $10 limit.
SELECT commonplace.by_file_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- timeline --
-- $6 local name or NULL, $7 number or id or NULL, $8 query or NULL, $9 platform or NULL, $10 before, $11 after.
SELECT commonplace.timeline_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- batch --
-- $6 numbers, $7 ids, $8 local names or NULL for all, $9 oldest first, $10 limit.
SELECT commonplace.memory_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- search --
-- $6 local names or NULL for all, $7 query or NULL, $8 platform or NULL, $9 kinds or NULL for all, $10 kinds left out, $11 from or NULL,
-- $12 to or NULL, $13 order, $14 limit, $15 offset.
SELECT commonplace.worker_search_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);
