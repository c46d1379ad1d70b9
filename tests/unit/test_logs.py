"""Log lines as they come out: one event a line, in one form."""

import re
import subprocess
import sys

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info interface=wg7 event=something value=3\n"
)

PROGRAM = """\
import logging
from wgd.logs import Logs
logs = Logs("verbose", "wg7")
logging.getLogger("some.module").info("event=%s value=%d", "something", 3)
logs.close()
"""


def test_a_line_has_time_level_interface_and_the_event() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )
    assert LINE.fullmatch(completed.stdout), completed.stdout
