-- What the notary remembers. Rows are written once and never changed; a worker may read and add, nothing else (grants.sql).
--
-- Keys are binary: one byte for the hash algorithm (0 SHA-256, 1 SHA-384, 2 SHA-512, 3 SHA-512/256, 4 SHA3-256, 5 SHA3-384,
-- 6 SHA3-512, 7 BLAKE2S256), the digest, and for states the output's index in four bytes, big end first.
--
-- There are no foreign keys: every row of one decision is written by one transaction, and checking keys that cannot dangle would
-- cost each insert a look-up and a lock. Fixed-width columns come first, so that no row holds padding.

CREATE SCHEMA notary;

-- One row for each migration. A worker needs the newest version to be at least its own, and every `usable_from` at most its own:
-- a migration that only adds says 1 there, and workers of the version before go on while the new ones are rolled out.
CREATE TABLE notary.schema_versions (
    version     integer     PRIMARY KEY,
    usable_from integer     NOT NULL,
    what        text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- Legal names with their keys (requesters), and without (workers, whose key is empty): written once, referred to by number.
-- `digest` is the SHA-256 of name and key, as keys may be too long for an index.
CREATE TABLE notary.names (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     bytea   NOT NULL UNIQUE,
    name       text    NOT NULL,
    public_key bytea   NOT NULL
);

-- The first decision about each transaction, and who asked for it. It stands for ever.
CREATE TABLE notary.transactions (
    decided_s        bigint   NOT NULL, -- Seconds since 1970 on the deciding worker's clock, and nanoseconds within the second.
    window_from_s    bigint,            -- The time window, only where it is the reason of a refusal.
    window_until_s   bigint,
    decided_ns       integer  NOT NULL,
    window_from_ns   integer,
    window_until_ns  integer,
    requester        integer  NOT NULL, -- names.id
    worker           integer  NOT NULL, -- names.id
    inputs           integer  NOT NULL, -- How many states it consumes, or would have.
    reference_inputs integer  NOT NULL, -- How many it refers to.
    platform_version integer  NOT NULL, -- As the requester stated and signed it.
    outcome          smallint NOT NULL, -- 0 committed, 1 refused for conflicts, 2 refused for its time window.
    id               bytea    PRIMARY KEY,
    signature        bytea    NOT NULL  -- The requester's, over the request.
);

-- Rows arrive in the order of time, so ranges of time are found by a few bytes for each megabyte.
CREATE INDEX transactions_by_time ON notary.transactions USING brin (decided_s) WITH (autosummarize = on);

-- Consumed states. This primary key is what makes a double spend impossible.
CREATE TABLE notary.states (
    key      bytea PRIMARY KEY,
    consumer bytea NOT NULL -- transactions.id
);

-- Why a transaction was refused with outcome 1, in the words it was told: its consumed states, in the request's order. Who consumed
-- them is in `states`, and stays there.
CREATE TABLE notary.conflicts (
    position       integer NOT NULL,
    is_reference   boolean NOT NULL,
    transaction_id bytea   NOT NULL,
    state          bytea   NOT NULL,
    PRIMARY KEY (transaction_id, position)
);

-- Corda's text forms, for people and their tools.

CREATE FUNCTION notary.hash_text(key bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (ARRAY['', 'SHA-384:', 'SHA-512:', 'SHA-512/256:', 'SHA3-256:', 'SHA3-384:', 'SHA3-512:', 'BLAKE2S256:'])
               [get_byte(key, 0) + 1]
           || upper(encode(substr(key, 2), 'hex'))
$$;

CREATE FUNCTION notary.state_text(key bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT notary.hash_text(substr(key, 1, length(key) - 4)) || ':'
           || to_hex(('x' || encode(substr(key, length(key) - 3), 'hex'))::bit(32)::integer)
$$;

-- The key of a state in Corda's text form; NULL for anything else. `SELECT * FROM notary.states WHERE key = notary.state_key('...')`
-- uses the index, which a search in the view below does not.
CREATE FUNCTION notary.state_key(state text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT substr(int4send(array_position(
                      ARRAY['', 'SHA-384:', 'SHA-512:', 'SHA-512/256:', 'SHA3-256:', 'SHA3-384:', 'SHA3-512:', 'BLAKE2S256:'],
                      coalesce(part[1], '')) - 1), 4)
           || decode(part[2], 'hex')
           || int4send(('x' || lpad(part[3], 8, '0'))::bit(32)::integer)
    FROM regexp_match(state, '^(.*:)?((?:[0-9A-Fa-f]{2})+):([0-9a-f]{1,8})$') AS part
$$;

-- NULL beyond the calendar, where only hostile clocks get.
CREATE FUNCTION notary.moment(seconds bigint, nanos integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN seconds BETWEEN -62135596800 AND 253402300799
                THEN to_timestamp(seconds::double precision) + nanos / 1000 * interval '1 microsecond' END
$$;

CREATE VIEW notary.notary_committed_states AS
    SELECT notary.state_text(key) AS state_ref, notary.hash_text(consumer) AS consuming_transaction_id
    FROM notary.states;

CREATE VIEW notary.notary_committed_transactions AS
    SELECT notary.hash_text(id) AS transaction_id FROM notary.transactions WHERE outcome = 0;

CREATE VIEW notary.notary_request_log AS
    SELECT notary.hash_text(t.id) AS consuming_transaction_id,
           requester.name AS requesting_party_name,
           notary.moment(t.decided_s, t.decided_ns) AS request_timestamp,
           t.signature AS request_signature,
           worker.name AS worker_node_x500_name
    FROM notary.transactions t
    JOIN notary.names requester ON requester.id = t.requester
    JOIN notary.names worker ON worker.id = t.worker;

-- Every attempt: the transaction named is the refused one.
CREATE VIEW notary.notary_double_spends AS
    SELECT notary.state_text(c.state) AS state_ref,
           notary.moment(t.decided_s, t.decided_ns) AS request_timestamp,
           notary.hash_text(c.transaction_id) AS consuming_transaction_id
    FROM notary.conflicts c
    JOIN notary.transactions t ON t.id = c.transaction_id;

INSERT INTO notary.schema_versions (version, usable_from, what) VALUES (1, 1, 'records');
