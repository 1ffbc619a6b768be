-- Keys, as authentication reads them.

-- authenticate --
-- $1 SHA-256 of the token, hexadecimal, $2 scopes of which it needs one, $3 requests a minute, $4 requests a month,
-- $5 tokens a month: this process's own limits or NULL, $6 whether it meters. Counts the request where there are limits.
SELECT commonplace.authenticate_v2($1, $2, $3, $4, $5, $6);
