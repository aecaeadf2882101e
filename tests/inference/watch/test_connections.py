"""What is said of a DICOMweb server that refuses a request or does not answer."""

import pytest
import requests

from bundle.ctfindings.inference.watch.connections import Unreachable, answering

ADDRESS = "https://doe:secret@pacs.example.org/dicom-web/studies/1.2.840.7"


def problem_of(error: requests.RequestException) -> ValueError:
    with pytest.raises(ValueError) as raised, answering():
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("status", "away", "words"),
    [
        (401, True, "needs a login (status 401); put it into ~/.netrc"),
        (403, True, "needs a login (status 403); put it into ~/.netrc"),
        (502, True, "is not available (status 502)"),
        (503, True, "is not available (status 503)"),
        (504, True, "is not available (status 504)"),
        (400, False, "refused"),
        (409, False, "refused"),
        (500, False, "refused"),
    ],
)
def test_a_status_says_whether_all_series_wait_or_one_has_failed(status: int, away: bool, words: str) -> None:
    answer = requests.Response()
    answer.status_code, answer.url = status, ADDRESS
    with pytest.raises(requests.HTTPError, match="secret") as error:
        answer.raise_for_status()
    problem = problem_of(error.value)
    assert isinstance(problem, Unreachable) == away
    assert words in str(problem) and f"(status {status})" in str(problem)
    assert not [part for part in ("doe", "secret", "pacs", "1.2.840") if part in str(problem)]


def test_a_server_that_cannot_be_reached_is_away_and_its_address_is_not_said() -> None:
    for error in (requests.ConnectionError(f"no route to {ADDRESS}"), requests.ReadTimeout(ADDRESS)):
        problem = problem_of(error)
        assert isinstance(problem, Unreachable)
        assert str(problem) == f"the DICOMweb server does not answer ({type(error).__name__})"
