-- Alone: between this lock and the end of the transaction nobody else consumes a state.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT pg_advisory_xact_lock(1852798049, 1);
