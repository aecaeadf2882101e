"""Reads a scan from a file to HU with an affine to RAS mm, and segments lungs and body."""
