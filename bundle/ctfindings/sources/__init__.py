"""From a data source to a datalist."""
