"""Free-text queries are checked before anything is loaded."""

from typing import Any

import pytest

from bundle.ctfindings.reports.queries import check_queries


@pytest.mark.parametrize("query", ["", "  ", "...", "\N{LUNGS} 12", "q", "a 1 b", "x" * 301, 7, None])
def test_a_query_that_cannot_be_asked_is_refused(query: Any) -> None:
    with pytest.raises(ValueError, match="queries"):
        check_queries([query])
    if isinstance(query, int):
        with pytest.raises(ValueError, match=r"queries: expected texts such as .* got 7"):
            check_queries(query)


@pytest.mark.parametrize("written", ["['fluid", "['the patient's heart']", " [fluid, air"])
def test_a_list_of_queries_that_cannot_be_read_is_refused_and_not_asked_as_a_text(written: str) -> None:
    with pytest.raises(ValueError, match="cannot be read as a list"):
        check_queries(written)


def test_queries_are_asked_once() -> None:
    assert check_queries(["fluid", " fluid ", "air"]) == ["fluid", "air"]
    assert check_queries("fluid around the lung") == ["fluid around the lung"]
