"""Metrics, confidence intervals and their plots."""
