"""A laboratory for whole daemons: namespaces joined by veth, configured by the real `wg`.

WGD_TEST_DAEMON names another implementation's daemon to run the same tests against; the tests of
promises that only wgd makes are skipped then.
"""

from tests.testbed.bed import Testbed
from tests.testbed.daemons import Daemon, Launch, daemon_command, only_wgd
from tests.testbed.namespaces import Namespace, Ping
from tests.testbed.requirements import require
from tests.testbed.tunnels import End, Tunnel
from tests.testbed.uapi import UapiConnection, uapi_get, uapi_set
from tests.testbed.waiting import stays_true, wait_until

__all__ = [
    "Daemon",
    "End",
    "Launch",
    "Namespace",
    "Ping",
    "Testbed",
    "Tunnel",
    "UapiConnection",
    "daemon_command",
    "only_wgd",
    "require",
    "stays_true",
    "uapi_get",
    "uapi_set",
    "wait_until",
]
