-- Consumed states, sorted by key. A row that exists fails the statement: somebody else consumed the state first.
INSERT INTO notary.states (key, consumer)
SELECT * FROM unnest($1::bytea[], $2::bytea[])
