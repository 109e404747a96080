-- The tables as they are: columns, keys, and whatever could change or hide a row behind a worker's back.
WITH relation AS (
    SELECT c.oid, c.relname, c.relrowsecurity, c.relpersistence
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace('notary') AND c.relkind IN ('r', 'p')
)
SELECT relname || '.' || attname AS item,
       format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
       || CASE WHEN attnotnull AND NOT atthasdef AND attidentity = '' THEN '' ELSE ' optional' END AS definition
FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT relname || ' key', pg_get_constraintdef(k.oid)
FROM relation JOIN pg_constraint k ON k.conrelid = relation.oid AND k.contype IN ('p', 'u')
UNION ALL
SELECT relname || ' trigger', tgname FROM relation JOIN pg_trigger ON tgrelid = relation.oid
UNION ALL
SELECT relname || ' rule', rulename FROM relation JOIN pg_rewrite ON ev_class = relation.oid
UNION ALL
SELECT relname || ' row security', 'enabled' FROM relation WHERE relrowsecurity
UNION ALL
SELECT relname || ' persistence', 'unlogged' FROM relation WHERE relpersistence <> 'p'
ORDER BY 1, 2
