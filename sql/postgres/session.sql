-- How each of a worker's connections is set up.

-- Every statement finds its rows by primary key. A planner without statistics must not read whole tables instead, today because
-- they are small and tomorrow because the plan was kept.
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET plan_cache_mode = force_generic_plan;

-- A worker that died with its machine is noticed within 5 + 3 * 3 = 14 seconds: its lease must end within 15.
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 3;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 14000;

-- «Canceling wait for synchronous replication» is a warning; it must reach the worker.
SET client_min_messages = warning;
