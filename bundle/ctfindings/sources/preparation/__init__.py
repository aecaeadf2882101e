"""From the studies of any source to a datalist and its data card."""
