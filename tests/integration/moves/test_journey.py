"""A clinic copied, followed, compared and followed back, to the same and to a newer Postgres."""

from control_plane.adapters.tenant_database import Identity
from control_plane.adapters.tenant_schema import verify_tenant_database
from control_plane.domain.moves import unequal
from tests.integration.moves.journey import Journey
from tests.integration.tenant_server.clinic import REVISION, Place, provision

# Everything a column may be, written as the tenant's owner would.
EVERYTHING = """
CREATE TYPE public.mood AS ENUM ('well', 'ill');
CREATE TYPE public.pair AS (a int, b text);
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE TABLE public."Every ""thing" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "a b" text, b bytea, f8 float8, f4 float4,
    n numeric(20,6), ts timestamptz, i interval, c char(9), arr text[], ints int[], js jsonb,
    j json,
    m public.mood, p public.pair, d public.positive, u uuid, net inet, bits bit varying(20),
    r int4range, mr datemultirange, x text, tv tsvector, pt point, mon money, tm time,
    tz timetz, oidc oid, made text GENERATED ALWAYS AS (upper("a b")) STORED, dropped int);
ALTER TABLE public."Every ""thing" DROP COLUMN dropped;
INSERT INTO public."Every ""thing" ("a b", b, f8, f4, n, ts, i, c, arr, ints, js, j, m, p, d, u,
        net, bits, r, mr, x, tv, pt, mon, tm, tz, oidc)
    SELECT 'tab' || chr(9) || 'line' || chr(10) || '\\\\' || g, decode(md5(g::text), 'hex'),
    g / 3.0,
           'NaN', g / 7.0, '2001-02-03 04:05:06.789+00'::timestamptz + g * interval '1 h',
           g * interval '1 mon 2 days 3 s', 'x', ARRAY['a,b', NULL, '{}'], ARRAY[g, NULL],
           jsonb_build_object('g', g), '{"b": 1,  "a": 2}', 'ill', ROW(g, 'q"q')::public.pair, g,
           gen_random_uuid(), '10.0.0.1/8', B'101', int4range(g, g + 5),
           datemultirange(daterange('2020-01-01', '2020-02-01')), '<a>b</a>',
           to_tsvector('a fat cat'), point(g, 1), '12.34', '11:12', '11:12+02', g
      FROM generate_series(1, 1000) AS g;
INSERT INTO public."Every ""thing" DEFAULT VALUES;
CREATE TABLE public.keyless (a int, b text);
INSERT INTO public.keyless SELECT g, 'row ' || g FROM generate_series(1, 100) AS g;
CREATE TABLE public.parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.parted_1 PARTITION OF public.parted
    FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE public.parted_d PARTITION OF public.parted DEFAULT;
INSERT INTO public.parted SELECT g, '2020-06-01'::date + g FROM generate_series(1, 400) AS g;
CREATE TABLE public.guarded (id int PRIMARY KEY, note text);
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON public.guarded USING (false);
CREATE TABLE public.nothing ();
CREATE MATERIALIZED VIEW public.shown AS SELECT count(*) FROM public.keyless;
"""


async def test_there_and_back_again(source: Place, target: Place) -> None:
    clinic = await provision(source)
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}; {EVERYTHING}; RESET ROLE")
    journey = Journey(clinic, target)
    facts = await journey.go()
    async with clinic.inside() as inside:
        for _ in range(20):
            await inside.execute(
                """INSERT INTO public."Every ""thing" ("a b", ints) VALUES ('later', '{1,2}');
                   UPDATE public.keyless SET b = b || '!' WHERE a % 7 = 0;
                   DELETE FROM public.parted WHERE id IN (SELECT min(id) FROM public.parted);
                   INSERT INTO public.guarded SELECT coalesce(max(id), 0) + 1, 'g'
                     FROM public.guarded;
                   INSERT INTO public.nothing DEFAULT VALUES"""
            )
    await journey.arrived()
    here, there = await journey.compare(facts)
    assert unequal(here, there) == []
    assert here['public."Every ""thing"'].rows == 1021
    assert here["public.guarded"].rows == 20
    assert len(here) == len(facts.tables) > 20
    await journey.turn(facts)
    moved = await target.server.admin(journey.there)
    wanted = Identity(clinic.roles.key, 2, "primary", target.system_identifier)
    # Rows written behind the back of replication are found.
    await moved.execute("INSERT INTO public.keyless VALUES (0, 'written over there')")
    await moved.execute("UPDATE public.parted SET id = id + 1000 WHERE id > 300")
    await journey.arrived(backwards=True)
    there, here = await journey.compare(facts, backwards=True)
    assert unequal(here, there) == []
    async with clinic.inside() as inside:
        await inside.execute("SET session_replication_role = replica")
        await inside.execute("UPDATE public.keyless SET b = 'forged' WHERE a = 0")
    there, here = await journey.compare(facts, backwards=True)
    assert unequal(here, there) == [
        "table public.keyless has 101 rows on both sides that differ",
    ]
    await verify_tenant_database(moved, clinic.roles, wanted, REVISION)
    await moved.close()
    await journey.end()
