-- Why those of them that were refused for conflicts were. A state without a consumer would be a damaged record.
SELECT c.transaction_id, c.is_reference, c.state, s.consumer
FROM notary.conflicts c
LEFT JOIN notary.states s ON s.key = c.state
WHERE c.transaction_id = ANY ($1)
ORDER BY c.transaction_id, c.position
