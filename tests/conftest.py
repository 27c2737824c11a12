"""For all tests: a slow machine makes no property wrong, and what a slow test needs has to be there."""

import signal

import pytest
from hypothesis import HealthCheck, settings
from support import needs

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# `pytest &` in a script ignores SIGINT, `nohup pytest` SIGHUP, and so would each command that a test starts and stops.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    needs.begin(item)
