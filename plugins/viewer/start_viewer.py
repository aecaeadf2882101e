"""Starts the viewer for a web browser: ``python plugins/viewer/start_viewer.py --server http://127.0.0.1:8000``."""

import sys

from ctfindings_viewer.launcher import main

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # before it listens, while the libraries load
        sys.exit(130)
