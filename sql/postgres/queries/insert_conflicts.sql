INSERT INTO notary.conflicts (transaction_id, position, is_reference, state)
SELECT * FROM unnest($1::bytea[], $2::integer[], $3::boolean[], $4::bytea[])
