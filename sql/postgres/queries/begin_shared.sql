-- Beside others of its kind, never beside an exclusive one (begin_exclusive.sql). 1852798049 is "nota" in ASCII.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT pg_advisory_xact_lock_shared(1852798049, 1);
