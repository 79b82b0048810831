"""`python -m paceline.worker` is `paceline worker`, for torchrun, which starts modules.

The command line is the command's own, in a layer above this one: it is run, not imported.
"""

import runpy
import sys

sys.argv[1:1] = ["worker"]
runpy.run_module("paceline.cli", run_name="__main__", alter_sys=True)
