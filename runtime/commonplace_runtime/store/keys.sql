-- Keys, as keys manage them.

-- mint --
-- $1 team, $2 key, $3 the key's project, $4 actor, $5 request id, $6 the new key.
SELECT commonplace.mint_key_v1($1::uuid, $2::uuid, $3::uuid, $4, $5, $6);

-- list --
-- $1-$5 as above, $6 limit, $7 and $8 time and id of the last one seen or NULL.
SELECT commonplace.list_keys_v1($1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7, $8);

-- revoke --
-- $1-$5 as above, $6 id of the key to revoke, $7 scopes that it may have.
SELECT commonplace.revoke_key_v1($1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7);
