"""The image of a synthetic chest CT."""
