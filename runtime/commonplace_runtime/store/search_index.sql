-- The search index as the keeper sees it. The functions are in 0016. Everything after `hold` runs in its transaction.

-- work --
-- $1 how many projects.
SELECT commonplace.search_work_v1($1::integer);

-- state --
-- $1 team, $2 project.
SELECT commonplace.search_state_v1($1::uuid, $2::uuid);

-- dead_indexes --
-- $1 team, $2 project.
SELECT commonplace.dead_indexes_v1($1::uuid, $2::uuid);

-- hold --
-- $1 team, $2 project, $3 whether this is an erasure, $4 how long to wait for whoever holds it, $5 for every other lock. Whether it is
-- held now. A keeper does not wait for another keeper, who does the same; but for erasures it does: these come and go, and where there
-- is always one, it would never have its turn.
-- The tables grow from nothing while connections live, and what is planned then must hold later: rows are looked up by their keys.
SELECT set_config('app.team_id', $1::uuid::text, true), set_config('lock_timeout', $4::text, true),
    set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    CASE WHEN $3::boolean OR pg_try_advisory_xact_lock(hashtextextended('commonplace.keeper:' || $2::uuid, 0))
        THEN pg_advisory_xact_lock(hashtextextended('commonplace.search:' || $2::uuid, 0)) IS NOT NULL ELSE false END AS held,
    set_config('lock_timeout', $5::text, true);

-- done --
-- $1 team, $2 hints.
DELETE FROM commonplace.search_work WHERE team_id = $1::uuid AND number = ANY ($2::bigint[]) AND rebuild_from IS NULL;

-- postpone --
-- $1 team, $2 project. What it says of building anew is kept.
WITH gone AS (
    DELETE FROM commonplace.search_work WHERE team_id = $1::uuid AND project_id = $2::uuid RETURNING rebuild_from, queued_at)
INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from, queued_at)
SELECT $1, $2, min(rebuild_from), min(queued_at) FROM gone GROUP BY rebuild_from IS NULL;

-- rebuild --
-- $1 team, $2 project, $3 how many memories. How many those were.
SELECT commonplace.rebuild_index_v1($1::uuid, $2::uuid, $3::integer);

-- tail --
-- $1 team, $2 project, $3 owner, $4 how many, by their weight.
SELECT number, memory_id, session_id, terms FROM commonplace.search_tail
WHERE team_id = $1::uuid AND project_id = $2::uuid AND owner_actor = $3::text AND number <= (
    SELECT max(number) FROM (
        SELECT number, sum(weight) OVER (ORDER BY number) - weight AS before FROM (
            SELECT number, commonplace.search_weight(terms) AS weight FROM commonplace.search_tail
            WHERE team_id = $1 AND project_id = $2 AND owner_actor = $3 ORDER BY number LIMIT $4::integer) AS oldest) AS weighed
    WHERE before < $4)
ORDER BY number FOR UPDATE SKIP LOCKED;

-- index --
-- $1 team, $2 project, $3 owner.
SELECT number, next_block, next_single FROM commonplace.search_indexes
WHERE team_id = $1::uuid AND project_id = $2::uuid AND owner_actor = $3::text;

-- new_index --
-- $1 team, $2 project, $3 owner.
INSERT INTO commonplace.search_indexes (team_id, project_id, owner_actor) VALUES ($1::uuid, $2::uuid, $3::text)
RETURNING number, next_block, next_single;

-- places --
-- $1 team, $2 index, $3 sessions.
SELECT session_id, block, used FROM commonplace.search_sessions
WHERE team_id = $1::uuid AND index_no = $2::integer AND session_id = ANY ($3::uuid[]);

-- write --
-- $1 team, $2 index, $3 its next block, $4 its next single document, $5 documents, $6 their memories, $7 sessions, $8 and $9 their
-- places, $10 words, $11 their postings.
WITH grown AS (
    UPDATE commonplace.search_indexes SET next_block = $3::integer, next_single = $4::integer, next_segment = next_segment + 1
    WHERE team_id = $1::uuid AND number = $2::integer RETURNING next_segment - 1 AS segment
), segment AS (
    INSERT INTO commonplace.search_segments (index_no, segment, team_id, documents)
    SELECT $2, segment, $1, cardinality($5::integer[]) FROM grown
), documents AS (
    INSERT INTO commonplace.search_documents (index_no, docno, segment, team_id, memory_id)
    SELECT $2, d.docno, grown.segment, $1, d.memory_id FROM grown, unnest($5::integer[], $6::uuid[]) AS d (docno, memory_id)
), sessions AS (
    INSERT INTO commonplace.search_sessions (session_id, index_no, team_id, block, used)
    SELECT session_id, $2, $1, block, used FROM unnest($7::uuid[], $8::integer[], $9::integer[]) AS s (session_id, block, used)
    ON CONFLICT (session_id, team_id, index_no) DO UPDATE SET block = excluded.block, used = excluded.used
)
INSERT INTO commonplace.search_postings (index_no, term, segment, team_id, data)
SELECT $2, w.term, grown.segment, $1, w.data FROM grown, unnest($10::integer[], $11::bytea[]) AS w (term, data);

-- untail --
-- $1 team, $2 project, $3 owner, $4 numbers.
DELETE FROM commonplace.search_tail
WHERE team_id = $1::uuid AND project_id = $2::uuid AND owner_actor = $3::text AND number = ANY ($4::integer[]);

-- compact --
-- $1 team, $2 index, $3 and $4 its first and last segment, $5 the word to begin after, $6 how many words. Where it ended; NULL: done.
SELECT commonplace.compact_index_v1($1::uuid, $2::integer, $3::integer, $4::integer, $5::bigint, $6::integer);

-- dead --
-- $1 team, $2 index, $3 how many, $4 how many words of them all. Documents whose postings are to go, and the lists in which these may
-- stand: each word with the segment into which they were merged. Whether there are any that live; if not, the index is dropped, and
-- nothing is listed. Whether there are more that are dead.
WITH living AS MATERIALIZED (SELECT FROM commonplace.search_documents WHERE team_id = $1::uuid AND index_no = $2::integer LIMIT 1),
gone AS MATERIALIZED (
    SELECT docno, segment, terms, cardinality(terms) AS words FROM commonplace.search_purges
    WHERE team_id = $1::uuid AND index_no = $2::integer AND EXISTS (SELECT FROM living)
    ORDER BY docno LIMIT $3::integer + 1
), dead AS MATERIALIZED (
    SELECT docno, segment, terms FROM (
        SELECT *, sum(words) OVER (ORDER BY docno) - words AS before, row_number() OVER (ORDER BY docno) AS place FROM gone) AS counted
    WHERE before < $4::integer AND place <= $3
), list AS MATERIALIZED (SELECT DISTINCT term, segment FROM dead, unnest(terms) AS term)
SELECT EXISTS (SELECT FROM living) AS has_living, (SELECT count(*) FROM gone) > (SELECT count(*) FROM dead) AS has_more,
    ARRAY(SELECT docno FROM dead ORDER BY docno) AS documents, (SELECT array_agg(term ORDER BY term, segment) FROM list) AS terms,
    (SELECT array_agg(segment ORDER BY term, segment) FROM list) AS segments;

-- lists --
-- $1 team, $2 index, $3 words, $4 segments into which something was merged that is in one of them now.
SELECT DISTINCT ON (l.place) l.place, l.data FROM unnest($3::integer[], $4::integer[]) AS w (term, segment)
CROSS JOIN LATERAL (
    SELECT p.ctid AS place, p.data FROM commonplace.search_postings p
    WHERE p.index_no = $2::integer AND p.term = w.term AND p.segment <= w.segment AND p.team_id = $1::uuid
    ORDER BY p.segment DESC LIMIT 1) AS l;

-- rewrite --
-- $1 team, $2 index, $3 places, as read under the same lock, $4 postings; none: the row goes.
WITH list AS MATERIALIZED (SELECT place, data FROM unnest($3::tid[], $4::bytea[]) AS l (place, data)),
emptied AS (
    DELETE FROM commonplace.search_postings WHERE ctid = ANY (ARRAY(SELECT place FROM list WHERE data = ''))
        AND team_id = $1::uuid AND index_no = $2::integer)
UPDATE commonplace.search_postings p SET data = list.data FROM list
WHERE p.ctid = list.place AND list.data <> '' AND p.team_id = $1 AND p.index_no = $2;

-- purged --
-- $1 team, $2 index, $3 documents. Which segment had them nobody knows; only the sum is ever asked for.
WITH gone AS (
    DELETE FROM commonplace.search_purges WHERE team_id = $1::uuid AND index_no = $2::integer AND docno = ANY ($3::integer[]) RETURNING 1
), counted AS (
    SELECT segment, sum(documents) OVER (ORDER BY segment DESC) - documents AS before
    FROM commonplace.search_segments WHERE team_id = $1 AND index_no = $2)
UPDATE commonplace.search_segments s
SET documents = s.documents - least(s.documents, greatest(0, (SELECT count(*) FROM gone) - counted.before))
FROM counted WHERE s.team_id = $1 AND s.index_no = $2 AND s.segment = counted.segment AND counted.before < (SELECT count(*) FROM gone);

-- drop --
-- $1 team, $2 index, $3 how many rows. Whether there are more; NULL: it has documents.
SELECT commonplace.drop_index_v1($1::uuid, $2::integer, $3::integer);
