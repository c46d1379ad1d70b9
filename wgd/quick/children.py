"""What a child process of ours does when we are killed."""

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel end the new process with us: for `preexec_fn`.

    So what a killed wgd or wgdctl was running changes nothing any more when the next one starts.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
