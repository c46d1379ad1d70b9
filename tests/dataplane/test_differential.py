"""The two engines do the same: random traffic, configuration and faults, in lockstep.

See `pair` for what is compared and what may differ, `machine` for what is done.
"""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.dataplane.machine import Machine
from tests.testbed.engines import NATIVE, require_engine

SETTINGS = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_both_engines_do_the_same() -> None:
    require_engine(NATIVE)
    run_state_machine_as_test(Machine, settings=SETTINGS)
