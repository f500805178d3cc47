"""Two clinics with data: a realistic one on Postgres 15, a third of it on Postgres 18."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.query_budget.loading import FULL_PATIENTS, LoadedClinic, loaded_clinic


@pytest.fixture(
    scope="package",
    params=[(15, FULL_PATIENTS), (18, FULL_PATIENTS // 3)],
    ids=["15-full", "18-third"],
)
async def loaded(request: pytest.FixtureRequest) -> AsyncIterator[LoadedClinic]:
    version, patients = request.param
    async with loaded_clinic(version, patients) as clinic:
        yield clinic
