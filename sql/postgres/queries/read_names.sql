SELECT digest, id
FROM notary.names
WHERE digest = ANY ($1)
