"""RadFinder: image encoder and tensor names."""
