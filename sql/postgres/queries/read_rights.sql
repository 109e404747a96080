-- What this connection's role may do and should not (excess), or should and may not. No rows: exactly its rights.
WITH me AS (
    SELECT * FROM pg_roles WHERE rolname IN (current_user, session_user)
),
ledger (name, may_insert) AS (
    VALUES ('names', true), ('transactions', true), ('states', true), ('conflicts', true), ('schema_versions', false)
),
relation AS (
    SELECT c.oid, c.relname, c.relowner, coalesce(l.may_insert, false) AS may_insert, l.name IS NOT NULL AS needed
    FROM pg_class c
    LEFT JOIN ledger l ON l.name = c.relname
    WHERE c.relnamespace = to_regnamespace('notary') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
),
owners (owner, what) AS (
    SELECT relowner, 'the table notary.' || relname FROM relation
    UNION ALL SELECT nspowner, 'the schema notary' FROM pg_namespace WHERE nspname = 'notary'
    UNION ALL SELECT datdba, 'the database' FROM pg_database WHERE datname = current_database()
),
rights (excess, what) AS (
    SELECT true, attribute
    FROM me, unnest(
        ARRAY['SUPERUSER', 'CREATEROLE', 'CREATEDB', 'REPLICATION', 'BYPASSRLS'],
        ARRAY[rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls]
    ) AS attributes (attribute, has)
    WHERE has
    UNION ALL
    SELECT true, 'membership in ' || r.rolname
    FROM pg_roles r
    WHERE r.rolname IN ('pg_write_all_data', 'pg_signal_backend', 'pg_write_server_files', 'pg_read_server_files',
                        'pg_execute_server_program', 'pg_checkpoint', 'pg_maintain', 'pg_create_subscription')
      AND pg_has_role(r.oid, 'MEMBER')
    UNION ALL
    SELECT true, 'ownership of ' || what FROM owners WHERE pg_has_role(owner, 'MEMBER')
    UNION ALL
    SELECT true, privilege || ' on notary.' || relname
    FROM relation, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
    WHERE NOT (privilege = 'INSERT' AND may_insert)
      AND (has_table_privilege(oid, privilege)
           OR CASE WHEN privilege IN ('INSERT', 'UPDATE', 'REFERENCES') THEN has_any_column_privilege(oid, privilege) END)
    UNION ALL
    SELECT true, 'CREATE on schema ' || nspname
    FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_' AND has_schema_privilege(oid, 'CREATE')
    UNION ALL
    SELECT true, privilege || ' on the database'
    FROM unnest(ARRAY['CREATE', 'TEMPORARY']) AS privilege
    WHERE has_database_privilege(current_database(), privilege)
    UNION ALL
    SELECT false, 'USAGE on schema notary'
    FROM pg_namespace WHERE nspname = 'notary' AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT false, privilege || ' on notary.' || relname
    FROM relation, unnest(ARRAY['SELECT', 'INSERT']) AS privilege
    WHERE needed AND (privilege = 'SELECT' OR may_insert) AND NOT has_table_privilege(oid, privilege)
)
SELECT DISTINCT excess, what
FROM rights
-- A superuser may do everything; one line says so.
WHERE what = 'SUPERUSER' OR NOT EXISTS (SELECT FROM me WHERE rolsuper)
ORDER BY excess DESC, what
