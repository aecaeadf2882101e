"""Slice references in reports."""
