"""Browser viewer for the findings of a CT Findings server, over a scene of 3D Slicer's core. Research only."""
