"""Files of any content: atomic writing, tables, HTML pages, process pools, journals."""
