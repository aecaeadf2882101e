"""RadFinder: preprocessing, towers, and the tensors of its checkpoint."""
