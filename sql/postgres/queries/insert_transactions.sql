-- First decisions, sorted by id; one moment and one worker for the whole batch. A row that exists fails the statement.
INSERT INTO notary.transactions (
    decided_s, decided_ns, worker,
    id, outcome, window_from_s, window_from_ns, window_until_s, window_until_ns,
    requester, inputs, reference_inputs, platform_version, signature
)
SELECT $1::bigint, $2::integer, $3::integer, decision.*
FROM unnest(
    $4::bytea[], $5::smallint[], $6::bigint[], $7::integer[], $8::bigint[], $9::integer[],
    $10::integer[], $11::integer[], $12::integer[], $13::integer[], $14::bytea[]
) AS decision
