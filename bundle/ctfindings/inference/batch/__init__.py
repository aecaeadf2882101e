"""Inference over many scans: archives, and masks for a datalist."""
