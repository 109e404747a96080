-- What a worker may do: read and add, nothing else, so that it cannot un-spend. Everybody else may not even connect.
-- Written for psql (`psql -v worker=NAME`); `notary db apply` runs it, and it may be run again at any time.

REVOKE CONNECT, TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"worker";

REVOKE ALL ON ALL TABLES IN SCHEMA notary FROM PUBLIC, :"worker";
REVOKE ALL ON SCHEMA notary FROM PUBLIC, :"worker";

GRANT USAGE ON SCHEMA notary TO :"worker";
GRANT SELECT ON notary.schema_versions TO :"worker";
GRANT SELECT, INSERT ON notary.names, notary.transactions, notary.states, notary.conflicts TO :"worker";
