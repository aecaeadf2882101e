"""From a file to HU on a RAS grid in mm, and its masks."""
