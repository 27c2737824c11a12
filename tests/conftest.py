"""For all tests: a slow machine makes no property wrong, and what a slow test needs has to be there."""

import pytest
from hypothesis import HealthCheck, settings
from support import needs

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    needs.begin(item)
