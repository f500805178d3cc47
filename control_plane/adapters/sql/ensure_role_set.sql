{reach}
DO $body$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['{owner}', '{app}', '{login_a}', '{login_b}', '{migrator}',
                                  '{backup}', '{auditor}', '{reader}'] LOOP
        IF to_regrole(wanted) IS NULL THEN
            EXECUTE 'CREATE ROLE ' || wanted || ' NOLOGIN';
        END IF;
    END LOOP;
END
$body$;

-- What nobody may log in to, and what owns or reads but never inherits by accident.
ALTER ROLE {owner} NOLOGIN PASSWORD NULL {attributes};
ALTER ROLE {app} NOLOGIN PASSWORD NULL {attributes};
ALTER ROLE {auditor} NOLOGIN PASSWORD NULL {attributes};
ALTER ROLE {reader} NOLOGIN PASSWORD NULL {attributes};

-- Logins are opened and closed elsewhere: LOGIN and the password are left as they are.
ALTER ROLE {login_a} INHERIT {attributes};
ALTER ROLE {login_b} INHERIT {attributes};
-- NOINHERIT: it must say SET ROLE, so that what it makes belongs to the owner.
ALTER ROLE {migrator} NOINHERIT {attributes} CONNECTION LIMIT 2;
-- BYPASSRLS: pg_dump refuses tables with row security otherwise. Not pg_read_all_data, which
-- would also read the verifiers of every other tenant in pg_authid.
ALTER ROLE {backup} {past_policies} CONNECTION LIMIT 8;

GRANT {app} TO {login_a}, {login_b};
-- The reader may do less than the app: a login that inherits both gains nothing, and one that says
-- SET LOCAL ROLE gives up the rest until the transaction ends.
GRANT {reader} TO {login_a}, {login_b};
GRANT {owner} TO {migrator};

ALTER ROLE {migrator} SET search_path = pg_catalog;
ALTER ROLE {backup} SET search_path = pg_catalog;
ALTER ROLE {backup} SET default_transaction_read_only = on;
