"""The modules of benchmarks/ are those of a script: found in its folder, in no package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
