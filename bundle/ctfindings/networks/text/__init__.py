"""The text side: tower, prompts, rows of a batch."""
