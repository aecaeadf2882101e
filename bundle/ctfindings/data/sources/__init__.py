"""Where studies come from: each source turns its files into a datalist."""
