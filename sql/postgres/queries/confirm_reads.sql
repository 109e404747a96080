-- A write that no table sees: a record in the log whose commit waits for disk and standbys like any other. What was read before
-- it is at least as durable.
SELECT pg_logical_emit_message(true, 'notary', '')
