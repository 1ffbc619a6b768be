-- Export and import; what each function does stands above it in 0014_transfer_functions.sql.

-- begin_export --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 project id or name or NULL, $7 details for audit.
SELECT commonplace.begin_export_v1($1, $2, $3, $4, $5, $6, $7);

-- export_page --
-- $1 team, $2 actor, $3 project, $4 its name, $5 kind, $6 place, $7 newest number, $8 since or NULL, $9 sources, $10 sessions,
-- $11 everything, $12 rows, $13 bytes.
SELECT place, line FROM commonplace.export_page_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- audit --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 action, $7 project or NULL, $8 details.
SELECT commonplace.audit_transfer_v1($1, $2, $3, $4, $5, $6, $7, $8);

-- import --
-- $1 team, $2 key, $3 key's project or NULL, $4 actor, $5 request id, $6 project id or name or NULL, $7 admin, $8 records.
SELECT commonplace.import_v1($1, $2, $3, $4, $5, $6, $7, $8);
