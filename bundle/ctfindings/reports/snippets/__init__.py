"""Slice references in reports: sentences that point at an image, and where that image lies."""
