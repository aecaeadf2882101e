"""Parts of the Slicer module that the viewer does not share: the findings table and the self-test."""
