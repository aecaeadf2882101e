"""From report text to sentences, assertions, labels and captions."""
