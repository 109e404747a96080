-- What was decided about these transactions.
SELECT id, outcome, decided_s, decided_ns, window_from_s, window_from_ns, window_until_s, window_until_ns
FROM notary.transactions
WHERE id = ANY ($1)
