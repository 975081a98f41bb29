"""Settings for all tests: of hypothesis, and of signals."""

import signal

from hypothesis import HealthCheck, settings

# A slow or busy machine makes no difference, nor what a fixture made for a test: examples do not change it.
_ALLOWED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("any machine", deadline=None, suppress_health_check=_ALLOWED)
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell, and so would be all children
    signal.signal(signal.SIGINT, signal.default_int_handler)
