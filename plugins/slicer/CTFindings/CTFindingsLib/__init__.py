"""What the module CT Findings does, without Qt. Of Slicer it needs only the MRML scene, so it runs on Slicer's core as
well.
"""
