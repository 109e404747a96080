SELECT max(version) AS version, max(usable_from) AS usable_from
FROM notary.schema_versions
