"""The difference of two schemas, and how people read it."""

import pytest

from control_plane.domain.schema_diff import Change, Definition, as_ddl, difference

GOLDEN: Definition = {
    "table": {"patients.patient": "TABLE"},
    "column": {
        "patients.patient.email": "text NOT NULL",
        "patients.patient.id": "uuid NOT NULL DEFAULT gen_random_uuid()",
    },
    "constraint": {"patients.patient.patient_pkey": "PRIMARY KEY (id)"},
    "index": {"patients.by_email": "CREATE INDEX by_email ON patients.patient USING btree (email)"},
    "function": {"public.f()": "CREATE FUNCTION public.f()\n AS $$ one $$"},
    "access": {"table patients.patient": "OWNER owner; app: SELECT"},
}


def changed(**kinds: dict[str, str | None]) -> Definition:
    """The golden definition with these texts instead; ``None`` takes one away."""
    found = {kind: dict(texts) for kind, texts in GOLDEN.items()}
    for kind, texts in kinds.items():
        for name, text in texts.items():
            if text is None:
                del found[kind][name]
            else:
                found.setdefault(kind, {})[name] = text
    return found


def test_equal_schemas_do_not_differ() -> None:
    assert difference(GOLDEN, changed()) == []
    assert as_ddl([]) == []


def test_every_kind_of_action_is_told() -> None:
    found = changed(
        index={"patients.by_email": None},
        column={"patients.patient.email": "character varying(20) NOT NULL"},
        table={"public.mine": "TABLE"},
    )
    assert difference(GOLDEN, found) == [
        Change("table", "public.mine", "unexpected", None, "TABLE"),
        Change(
            "column",
            "patients.patient.email",
            "different",
            "text NOT NULL",
            "character varying(20) NOT NULL",
        ),
        Change("index", "patients.by_email", "missing", GOLDEN["index"]["patients.by_email"], None),
    ]


def test_the_order_does_not_depend_on_the_order_of_the_definitions() -> None:
    found = changed(index={"patients.by_email": None}, column={"patients.patient.email": "text"})
    backwards = {kind: dict(reversed(texts.items())) for kind, texts in reversed(found.items())}
    assert difference(GOLDEN, found) == difference(GOLDEN, backwards)


DDL = {
    "missing index": (
        changed(index={"patients.by_email": None}),
        (
            "-- missing index patients.by_email\n"
            "CREATE INDEX by_email ON patients.patient USING btree (email);"
        ),
    ),
    "different column": (
        changed(column={"patients.patient.email": "character varying(20)"}),
        "-- different column patients.patient.email: text NOT NULL -> character varying(20)",
    ),
    "missing column": (
        changed(column={"patients.patient.email": None}),
        (
            "-- missing column patients.patient.email\n"
            "ALTER TABLE patients.patient ADD COLUMN email text NOT NULL;"
        ),
    ),
    "unexpected constraint with an odd name": (
        changed(constraint={'patients.patient."a.b"': "CHECK (true)"}),
        (
            '-- unexpected constraint patients.patient."a.b"\n'
            '-- ALTER TABLE patients.patient ADD CONSTRAINT "a.b" CHECK (true);'
        ),
    ),
    "braces in a text": (
        changed(constraint={"patients.patient.c": "CHECK (x = '{name}')"}),
        (
            "-- unexpected constraint patients.patient.c\n"
            "-- ALTER TABLE patients.patient ADD CONSTRAINT c CHECK (x = '{name}');"
        ),
    ),
    "different body": (
        changed(function={"public.f()": "CREATE FUNCTION public.f()\n AS $$ two $$"}),
        (
            "-- different function public.f()\n"
            "-- --- golden\n-- +++ found\n-- @@ -1,2 +1,2 @@\n--  CREATE FUNCTION public.f()\n"
            "-- - AS $$ one $$\n-- + AS $$ two $$"
        ),
    ),
    "different access": (
        changed(access={"table patients.patient": "OWNER owner; app: DELETE, SELECT"}),
        (
            "-- different access table patients.patient: "
            "OWNER owner; app: SELECT -> OWNER owner; app: DELETE, SELECT"
        ),
    ),
}


@pytest.mark.parametrize("case", DDL.values(), ids=DDL.keys())
def test_a_change_reads_like_ddl(case: tuple[Definition, str]) -> None:
    found, expected = case
    assert as_ddl(difference(GOLDEN, found)) == [expected]


def test_a_missing_table_brings_its_columns_and_constraints_along() -> None:
    found: Definition = {kind: {} for kind in GOLDEN}
    table, *others = as_ddl(difference(GOLDEN, found))
    assert table == (
        "-- missing table patients.patient\n"
        "CREATE TABLE patients.patient (\n"
        "    email text NOT NULL,\n"
        "    id uuid NOT NULL DEFAULT gen_random_uuid(),\n"
        "    CONSTRAINT patient_pkey PRIMARY KEY (id)\n"
        ");"
    )
    assert [entry.splitlines()[0] for entry in others] == [
        "-- missing index patients.by_email",
        "-- missing function public.f()",
        "-- missing access table patients.patient",
    ]
