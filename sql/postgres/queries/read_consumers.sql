-- Who consumed these states. One statement, so one moment.
SELECT key, consumer
FROM notary.states
WHERE key = ANY ($1)
