"""Starts the viewer for a web browser: ``python plugins/viewer/start_viewer.py --server http://127.0.0.1:8000``."""

from ctfindings_viewer.launcher import main

if __name__ == "__main__":
    main()
