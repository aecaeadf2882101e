"""Checks of free-text queries, before anything heavy is imported."""

import re
from collections.abc import Sequence

MAX_QUERY_CHARACTERS = 300


def check_queries(queries: Sequence[str] | str) -> list[str]:
    """Queries with single spaces and without duplicates.

    ValueError for a query that is not text, is empty, has no word, is too long, or starts like a list but is text.
    """
    if isinstance(queries, str) and queries.lstrip().startswith("["):
        raise ValueError(
            f"queries: {queries[:40]!r} cannot be read as a list; "
            "write \"['fluid around the lung','air']\", or one text alone"
        )
    if not isinstance(queries, Sequence):
        raise ValueError(f"queries: expected texts such as \"['fluid around the lung']\", got {queries!r}")
    texts = []
    for query in [queries] if isinstance(queries, str) else queries:
        if not isinstance(query, str):
            raise ValueError(f"queries: expected text such as \"['fluid around the lung']\", got {query!r}")
        text = " ".join(query.split())
        if not text:
            raise ValueError("queries: one of them is empty; write what to look for, such as 'fluid around the lung'")
        if not re.search(r"[^\W\d_]{2}", text):
            raise ValueError(f"queries: {text[:40]!r} has no word; write for example 'fluid around the lung'")
        if len(text) > MAX_QUERY_CHARACTERS:
            problem = f"'{text[:40]}...' has {len(text)} characters"
            raise ValueError(f"queries: {problem}; at most {MAX_QUERY_CHARACTERS} are allowed; shorten it")
        texts.append(text)
    return list(dict.fromkeys(texts))
