from pathlib import Path

import httpx
import pytest

from tests.driver import Driver


@pytest.fixture
async def driver(api: httpx.AsyncClient, failpoints: Path) -> Driver:
    return Driver(api, failpoints)
