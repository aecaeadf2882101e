"""Writers of the results of one scan."""
