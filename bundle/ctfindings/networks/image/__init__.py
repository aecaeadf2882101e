"""The image side: towers, token statistics, pooling."""
