"""CT-RATE as a source."""
