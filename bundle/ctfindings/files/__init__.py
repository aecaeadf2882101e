"""Files of any content: atomic writes, tables, HTML pages, parallel map, resume journal, fingerprints."""
