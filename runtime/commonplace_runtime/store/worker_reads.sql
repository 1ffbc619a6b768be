-- Memories as claude-mem's hooks and tools read them from their worker. Every statement that shows any audits.
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id in each but search_parts.

-- context --
-- $6 local names or NULL for all, $7 platform or NULL, $8 limit.
SELECT commonplace.context_inject_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- by_file --
-- $6 local names or NULL for all, $7 last parts of the paths, $8 whole paths, $9 endings, $10 limit.
SELECT commonplace.by_file_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- timeline --
-- $6 local name or NULL, $7 number or id, $8 query or NULL, $9 platform or NULL, $10 before, $11 after.
SELECT commonplace.timeline_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- timeline_of_query --
-- $6 local name or NULL, $7 query, $8 platform or NULL, $9 before, $10 after; $11 indexes, $12 documents and $13 scores of the
-- ranking, each NULL for the words of the rows; $14 words, $15 years, $16 months that the query names.
SELECT commonplace.timeline_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- batch --
-- $6 numbers, $7 ids, $8 local names or NULL for all, $9 oldest first, $10 limit.
SELECT commonplace.memory_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- search_parts --
-- $1 team, $2 key's project or NULL, $3 actor, $4 local names or NULL for all, $5 query.
SELECT part, index_no, number, data FROM commonplace.worker_parts_v1($1, $2, $3, $4, $5);

-- search --
-- $6 local names or NULL for all, $7 query or NULL, $8 platform or NULL, $9 kinds or NULL for all, $10 kinds left out, $11 from or NULL,
-- $12 to or NULL, $13 order, $14 limit, $15 offset, $16 to $21 as $11 to $16 of timeline_of_query.
SELECT commonplace.worker_search_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);
