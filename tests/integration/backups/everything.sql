-- One of everything that a tenant can keep in a table. citext and hstore are there already.
CREATE SCHEMA zoo;
SET search_path = zoo, public;

CREATE TYPE zoo.mood AS ENUM ('sad', 'it''s "ok"', 'happy');
CREATE TYPE zoo.pair AS (a integer, b text);
CREATE TYPE zoo.nested AS (p zoo.pair, many zoo.pair[], m zoo.mood);
CREATE TYPE zoo.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN zoo.small AS integer CHECK (VALUE < 1000);
CREATE DOMAIN zoo.smaller AS zoo.small CHECK (VALUE < 100);
CREATE DOMAIN zoo.word AS text COLLATE "C";
CREATE DOMAIN zoo.words AS text[];

-- Each type has a column that is filled in every row but the last, which is NULL throughout.
CREATE TABLE zoo.types (
    id integer PRIMARY KEY,
    a_bool boolean, a_char "char", a_name name, a_int2 smallint, a_int4 integer, a_int8 bigint,
    a_oid oid, a_text text, a_varchar varchar(20), a_bpchar char(10), a_loose bpchar, a_bytea bytea,
    a_float4 real, a_float8 double precision, a_numeric numeric, a_scaled numeric(12, 4), a_money money,
    a_date date, a_time time, a_timetz timetz, a_timestamp timestamp, a_timestamptz timestamptz,
    a_interval interval, a_uuid uuid, a_json json, a_jsonb jsonb, a_path jsonpath,
    a_bit bit(5), a_varbit varbit, a_inet inet, a_cidr cidr, a_macaddr macaddr, a_macaddr8 macaddr8,
    a_point point, a_line line, a_lseg lseg, a_box box, a_open path, a_polygon polygon, a_circle circle,
    a_tsvector tsvector, a_tsquery tsquery, a_xid xid, a_xid8 xid8, a_cid cid, a_tid tid, a_lsn pg_lsn,
    a_snapshot pg_snapshot, a_regclass regclass, a_regtype regtype, a_regproc regproc,
    a_regprocedure regprocedure, a_regrole regrole, a_regnamespace regnamespace, a_regconfig regconfig,
    a_oidvector oidvector, a_int2vector int2vector,
    int_range int4range, big_range int8range, num_range numrange, day_range daterange,
    ts_range tsrange, tstz_range tstzrange, a_span zoo.span,
    int_many int4multirange, num_many nummultirange, tstz_many tstzmultirange,
    a_mood zoo.mood, a_pair zoo.pair, a_nested zoo.nested, a_small zoo.small, a_smaller zoo.smaller,
    a_word zoo.word, a_words zoo.words,
    ints integer[], grid integer[][], texts text[], floats float8[], times timestamptz[],
    moneys money[], bytes bytea[], moods zoo.mood[], pairs zoo.pair[], intervals interval[],
    ranges int4range[], jsons jsonb[], chars char(3)[], smalls zoo.small[],
    a_citext citext, a_hstore hstore, citexts citext[]
);
INSERT INTO zoo.types
SELECT i, i % 2 = 0, 'x', 'a name', i, -i, 9007199254740993 + i, 4000000000, E'tab\t"quote" \\ Ünïcode 🦓' || i,
       'vary  ', 'fixed', 'loose  ', '\x00ff27225c', 0.1::real + i, 1.0 / 3 + i, 1.10 + i, 12345678.9 + i, 12.34 * i,
       date '2024-02-29' + i, time '23:59:59.999999', timetz '12:34:56.789+05:30',
       timestamp '1999-12-31 23:59:59.999999', timestamptz '2024-03-31 02:30:00+02',
       interval '1 year -2 mons 3 days -04:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
       '{"b": 1,  "a" :[1.10, null]}', '{"b": 1,  "a" :[1.10, null], "c": "\u20ac"}', '$.a[*] ? (@ > 1)',
       B'10101', B'1' || (i % 2)::bit(1), '192.168.1.5/24', '10.0.0.0/8',
       '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
       '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3.5>',
       to_tsvector('english', 'The quick brown foxes jumped'), to_tsquery('english', 'quick & !slow <-> fox'),
       '12345', '1234567890123', '7', '(42,7)', '16/B374D848', '10:20:10,14,15', 'zoo.types', 'zoo.pair[]',
       'now', 'lower(text)', 'pg_monitor', 'zoo', 'english', '1 2 3', '4 5',
       '[1,10)', '(,5]', '[1.50,2.5)', '[2024-01-01,2024-02-01)', '[2024-01-01,)', '["2024-01-01 00:00+02",infinity)', '[0.1,0.3)',
       '{[1,3),[5,7)}', '{[1.0,2.0)}', '{["2024-01-01 00:00+00","2024-01-02 00:00+00")}',
       'it''s "ok"', ROW(i, 'x,"y"\z')::zoo.pair, '("(1,)","{""(2,\\""\\"")"",NULL}",sad)', 999, 99,
       'word', ARRAY['w', NULL, ''],
       ARRAY[1, NULL, 3], '[0:1][2:3]={{1,2},{3,4}}', ARRAY['a,b', '{}', NULL, 'NULL', '', E'new\nline'],
       ARRAY[0.1, 'NaN', '-Infinity', 1e300], ARRAY[timestamptz '2024-01-01 00:00+02', 'infinity'],
       ARRAY[1.5::money, NULL], ARRAY['\x00ff'::bytea, '\x'], ARRAY['sad', 'happy']::zoo.mood[],
       ARRAY[ROW(1, 'a')::zoo.pair, ROW(NULL, NULL)::zoo.pair], ARRAY[interval '1 mon', '-3 days 00:00:01'],
       ARRAY['empty', int4range(1, 3)], ARRAY['{"a": 1}', 'null']::jsonb[], ARRAY['a', 'bcd'], ARRAY[1, 2]::zoo.small[],
       'CiText', 'k=>"v, w", n=>NULL', ARRAY['A', 'a']::citext[]
  FROM generate_series(1, 50) AS i;
-- Values at their limits, and all the ways to be nothing.
INSERT INTO zoo.types (id, a_float4, a_float8, a_numeric, a_timestamptz, a_date, a_text, a_jsonb, texts, a_pair, int_range)
VALUES (101, 'NaN', '-Infinity', 'NaN', 'infinity', '-infinity', '', 'null', '{}', ROW(NULL, NULL), 'empty'),
       (102, '-0', '-0', '0.000', '4713-01-01 BC', '4714-11-24 BC', 'NULL', '""', '{NULL}', NULL, '(,)'),
       (103, 3.4e38, 1.7976931348623157e308, 'Infinity', '294276-12-31', '5874897-12-31', ' ', '{}', '{""}', ROW(0, ''), NULL),
       (104, 1e-45, 5e-324, 1e-200, NULL, NULL, repeat('🦓', 100000), to_jsonb(repeat('j', 300000)), NULL, NULL, NULL);
INSERT INTO zoo.types (id) VALUES (105);

-- How tables come to be.
CREATE TABLE zoo.identity (id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT -5 MINVALUE -1000 MAXVALUE 1000),
                           other integer GENERATED BY DEFAULT AS IDENTITY, word text);
INSERT INTO zoo.identity (word) SELECT 'w' || i FROM generate_series(1, 20) AS i;
CREATE TABLE zoo.generated (a integer, b integer GENERATED ALWAYS AS (a * 2) STORED, "Serial" serial, c text DEFAULT 'd');
INSERT INTO zoo.generated (a) SELECT generate_series(1, 30);
CREATE TABLE zoo.parent (a integer, b text);
CREATE TABLE zoo.child (c integer, b text NOT NULL) INHERITS (zoo.parent);
ALTER TABLE zoo.parent ADD COLUMN later date DEFAULT '2020-02-02';
INSERT INTO zoo.parent VALUES (1, 'in the parent'), (2, 'too');
INSERT INTO zoo.child (a, b, c) VALUES (3, 'in the child', 4);
CREATE TABLE zoo.parted (day date NOT NULL, n integer, note text) PARTITION BY RANGE (day);
CREATE TABLE zoo.parted_2023 PARTITION OF zoo.parted FOR VALUES FROM ('2023-01-01') TO ('2024-01-01') PARTITION BY HASH (n);
CREATE TABLE zoo.parted_2023_0 PARTITION OF zoo.parted_2023 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE zoo.parted_2023_1 (note text, n integer, gone integer, day date NOT NULL);
ALTER TABLE zoo.parted_2023_1 DROP COLUMN gone;
ALTER TABLE zoo.parted_2023 ATTACH PARTITION zoo.parted_2023_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE zoo.parted_rest PARTITION OF zoo.parted DEFAULT;
INSERT INTO zoo.parted SELECT date '2023-06-01' + i, i, 'note ' || i FROM generate_series(1, 400) AS i;
CREATE UNLOGGED TABLE zoo.unlogged (a integer);
INSERT INTO zoo.unlogged SELECT generate_series(1, 10);
CREATE TABLE zoo.nothing ();
INSERT INTO zoo.nothing SELECT FROM generate_series(1, 7);
CREATE TABLE zoo.emptied (a integer, gone text, b text);
INSERT INTO zoo.emptied SELECT i, 'gone', 'stays' || i FROM generate_series(1, 9) AS i;
ALTER TABLE zoo.emptied DROP COLUMN gone, ADD COLUMN born integer DEFAULT 42;
CREATE TABLE zoo.only_gone (a integer);
INSERT INTO zoo.only_gone VALUES (1), (2);
ALTER TABLE zoo.only_gone DROP COLUMN a;
CREATE TABLE zoo.never_filled (a integer, b zoo.mood);
DO $body$
BEGIN
    EXECUTE (SELECT 'CREATE TABLE zoo.wide (' || string_agg(format('c%s smallint', i), ', ') || ')'
               FROM generate_series(1, 1600) AS i);
    EXECUTE 'INSERT INTO zoo.wide (c1, c800, c1600) VALUES (1, 2, 3), (4, NULL, 6)';
END
$body$;

-- Names that are not simple.
CREATE SCHEMA "Zoo; DROP SCHEMA ""zoo""";
CREATE TABLE "Zoo; DROP SCHEMA ""zoo"""."line
break %s \ 'quote' ""double"" 🦓" ("SELECT" integer, "a ""b"" 'c' %I
{d}" text, "t" text, "h" integer);
INSERT INTO "Zoo; DROP SCHEMA ""zoo"""."line
break %s \ 'quote' ""double"" 🦓" VALUES (1, 'x', 'y', 2);
CREATE SEQUENCE "Zoo; DROP SCHEMA ""zoo"""."Seq
\ 'uence" INCREMENT -3 START -1;
SELECT nextval('"Zoo; DROP SCHEMA ""zoo"""."Seq
\ ''uence"');
CREATE SEQUENCE zoo.untouched;
CREATE SEQUENCE zoo.round MAXVALUE 3 CYCLE;
SELECT nextval('zoo.round') FROM generate_series(1, 5);

-- What has no rows of its own.
CREATE VIEW zoo.seen AS SELECT id, a_text FROM zoo.types;
CREATE MATERIALIZED VIEW zoo.counted AS SELECT count(*) AS n FROM zoo.types;
