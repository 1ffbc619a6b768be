-- Keys, as authentication reads them.

-- authenticate --
-- $1 SHA-256 of the token, hexadecimal. Counts the request where the team has such limits.
SELECT commonplace.authenticate_v1($1);
