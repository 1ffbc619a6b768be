-- The four group roles (NOLOGIN). Idempotent; run by `commonplace migrate --create-roles` as a role
-- with CREATEROLE (no superuser is needed). Log-in roles are made by whoever owns the database:
--   CREATE ROLE my_api LOGIN PASSWORD '…' IN ROLE commonplace_runtime;
-- Nobody gets BYPASSRLS.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['commonplace_owner', 'commonplace_runtime', 'commonplace_operator', 'commonplace_admin']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another migration run made it in the same moment
            END;
        END IF;
    END LOOP;
    -- An administrator of tenants acts with the owner's rights, still under the owner's policies.
    IF NOT pg_catalog.pg_has_role('commonplace_admin', 'commonplace_owner', 'MEMBER') THEN
        GRANT commonplace_owner TO commonplace_admin;
    END IF;
    -- SET, not MEMBER: who creates a role is a member of it, but may not act as it unless told.
    IF NOT pg_catalog.pg_has_role(current_user, 'commonplace_owner', 'SET') THEN
        EXECUTE format('GRANT commonplace_owner TO %I', current_user);
    END IF;
    IF NOT pg_catalog.has_database_privilege('commonplace_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO commonplace_owner', current_database());
    END IF;
END
$$;
