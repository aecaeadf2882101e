"""Starts the MONAI Label server of CT Findings: ``python plugins/monailabel/start_server.py --studies DIR``."""

import os
import sys

# Before numpy is imported: its products here are small, and two threads for each would wait for each other more than
# they compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lib.launcher import main

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # before it listens, while libraries and weights load
        sys.exit(130)
