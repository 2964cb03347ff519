-- A role that reads the views of the state database and nothing else: no tables, no tokens, no
-- writes. Run it once as the owner of the database, with a password of your own.
CREATE ROLE mlmon_reader LOGIN PASSWORD 'change-me';
ALTER ROLE mlmon_reader SET default_transaction_read_only = on;
ALTER ROLE mlmon_reader SET statement_timeout = '30s';
-- Samples of a metric lie apart; on anything but a spinning disk that costs little.
ALTER ROLE mlmon_reader SET random_page_cost = 1.1;
GRANT USAGE ON SCHEMA public TO mlmon_reader;
GRANT SELECT ON mlmon_metric, mlmon_monitor, mlmon_standing, mlmon_alert, mlmon_window TO mlmon_reader;
