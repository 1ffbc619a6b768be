-- What a probe asks.

-- schema_version --
SELECT commonplace.schema_version_v1();

-- may_act_as_owner --
-- $1 the owner's role.
SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = $1::text;
