-- Captured events.

-- ingest --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 generate, $7 awaited; of the event: $8 id, $9 its job's id,
-- $10 project, $11 serverSessionId, $12 contentSessionId or NULL, $13 whether it names a platform, $14 which or NULL, $15 adapter,
-- $16 source event id or NULL, $17 type, $18 payload and $19 metadata as JSON, $20 when it occurred (ms), $21 digest,
-- $22 private parts, $23 redacted secrets.
SELECT project_id, session_id, received_ms, created_ms, shown, job FROM commonplace.ingest_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
    $11, $12, $13, $14, $15, $16, $17, $18::text::jsonb, $19::text::jsonb, $20, $21, $22, $23);

-- ingest_batch --
-- $1 to $7 as above, $8 spots, $9 the spot of each event, then columns: $10 ids, $11 jobs' ids, $12 adapters, $13 source event ids,
-- $14 types, $15 payloads, $16 metadata, $17 when they occurred, $18 digests, $19 private parts, $20 redacted secrets.
SELECT project_id, session_id, received_ms, created_ms, shown, job FROM commonplace.ingest_batch_v2($1, $2, $3, $4, $5, $6, $7, $8, $9,
    $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- get --
-- $1 team, $2 actor, $3 event id as it was given.
SELECT commonplace.get_event_v2($1, $2, $3);
