-- What a probe asks.

-- schema_version --
SELECT commonplace.schema_version_v1();
