-- Captured events.

-- ingest --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 generate, $7 the event in a list, $8 awaited.
SELECT commonplace.ingest_v1($1, $2, $3, $4, $5, $6, false, $7, $8);

-- ingest_batch --
-- The same for many events.
SELECT commonplace.ingest_batch_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- get --
-- $1 team, $2 actor, $3 event id as it was given.
SELECT commonplace.get_event_v2($1, $2, $3);
