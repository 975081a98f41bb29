"""For all tests: settings of hypothesis and of signals; the site, built once."""

import signal

import pytest
from helpers import site as pages
from hypothesis import HealthCheck, settings

# A slow or busy machine makes no difference, nor what a fixture made for a test: examples do not change it.
_ALLOWED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("any machine", deadline=None, suppress_health_check=_ALLOWED)
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell, and so would be all children
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder with the site of docs/, built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    pages.build(folder)
    return folder
