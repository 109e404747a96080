-- Its own transaction, before that of the batch: nobody waits for a batch to learn a name.
INSERT INTO notary.names (digest, name, public_key)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[])
ON CONFLICT (digest) DO NOTHING
