"""Who acts: what is refused before any database is asked. The rest needs a real Postgres."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tenant_template.client import NoTransaction, acting_as


@pytest.mark.parametrize("user", ["", "  ", "a\nb", "x" * 201, "a\0b"])
def test_a_user_that_cannot_be_recorded(user: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        acting_as(Session(), user)


def test_outside_a_transaction_nobody_acts() -> None:
    engine = create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(NoTransaction), acting_as(session, "ada"):
        pytest.fail("the block was entered")
    with engine.connect() as connection:
        with pytest.raises(NoTransaction), acting_as(connection, "ada"):
            pytest.fail("the block was entered")
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with connection.begin(), pytest.raises(NoTransaction), acting_as(connection, "ada"):
            pytest.fail("the block was entered")
    engine.dispose()


async def test_each_kind_of_session_has_its_kind_of_block() -> None:
    with pytest.raises(TypeError, match="use: with"):
        async with acting_as(Session(), "ada"):
            pytest.fail("the block was entered")
