"""The report of a synthetic chest CT."""
