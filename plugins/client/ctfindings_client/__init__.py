"""Client of a CT Findings server, and its answers in a 3D Slicer scene. No Qt; standard library, numpy and VTK only."""
