"""The table, its keys, the draft report and free text, in the page."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.plugins.monailabel.live_server import LiveServer

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.plugins.viewer.browser import NEEDS, Page, heat_coloured, outlined, record_of

pytestmark = NEEDS


QUERY = "fluid around the lung"


def test_from_a_scan_of_the_server_to_findings_heat_and_free_text(page: Page, server: LiveServer) -> None:
    record = record_of(server)
    present = sorted((f for f in record["findings"] if f["present"]), key=lambda f: -f["probability"])
    assert page.text(".ct-notice") == "Research only. Not a diagnosis."
    page.open()
    page.until(lambda: page.view("axial").std() > 20, "the axial view is empty")
    before = page.settled("axial")

    page.click("#find")
    page.until(lambda: len(page.names()) == 18, "the table did not fill")
    assert page.names()[: len(present)] == [finding["name"] for finding in present], "present findings come first"
    page.until(lambda: "strongest at" in page.text("#status"), "the first finding was not shown")
    assert page.state("show_anatomy") is False and not outlined(page.settled("axial")).any()
    page.set("show_anatomy", True)
    page.until(lambda: outlined(page.view("axial")).mean() > 0.001, "the outlines are not drawn")
    page.set("show_anatomy", False)
    page.set("show_box", False)

    first, other = (
        present[0],
        next(f for f in present[1:] if abs(f["evidence"]["z_mm"] - present[0]["evidence"]["z_mm"]) > 5),
    )
    heat = heat_coloured(before).mean()
    page.until(lambda: heat_coloured(page.view("axial")).mean() > heat + 0.001, "no heat over the axial view")
    at_first = page.settled("axial")
    images = record["scan"]["shape"][2]
    assert page.text("#place-axial") == f"image {first['evidence']['image']} of {images}"
    page.choose(page.names().index(other["name"]))
    assert page.text("#status").startswith(f"{other['name']} {other['probability']:.2f}: strongest at")
    assert page.text("#place-axial") == f"image {other['evidence']['image']} of {images}"
    page.until(lambda: (np.abs(page.view("axial") - at_first).max(axis=-1) > 30).mean() > 0.01, "the view did not move")
    at_other = page.settled("axial")

    heated = heat_coloured(at_other)
    page.set("opacity", 0.0)
    page.until(lambda: heat_coloured(page.view("axial")).mean() < 0.0005, "heat without opacity is still drawn")
    inside = heated[:, 1:] & heated[:, :-1]
    with_heat, without = (
        np.abs(np.diff(view.mean(axis=-1), axis=1))[inside].mean() for view in (at_other, page.settled("axial"))
    )
    assert with_heat > 0.6 * without > 0, "the heat hides the scan below it"
    page.set("opacity", 0.5)
    page.until(lambda: heat_coloured(page.view("axial")).mean() > 0.001, "the heat did not come back")

    asked = server.infer("evidence", "image=synthetic", {"query": QUERY}, output="json").params
    page.driver.find_element(By.CSS_SELECTOR, "input#query").send_keys(QUERY)
    page.answered(lambda: page.click("#ask"), f"{QUERY}: strongest at")
    assert page.text("#place-axial") == f"image {asked['image']} of {images}"
    line = page.driver.find_element(By.CSS_SELECTOR, "#depth polyline").get_attribute("points")
    assert len(line.split()) == len(asked["depth"]), "the profile has a point for each level"


def test_a_click_on_a_head_sorts_the_table(found: Page) -> None:
    page = found
    page.click("#findings th:nth-child(1)")
    page.until(lambda: page.names() == sorted(page.names()), "the names are not in order")
    page.click("#findings th:nth-child(1)")
    page.until(lambda: page.names() == sorted(page.names(), reverse=True), "the order did not turn around")


def test_the_keyboard_sorts_the_table_and_its_head_says_how(found: Page) -> None:
    page = found

    def order(column: int) -> str | None:
        return page.driver.find_element(By.CSS_SELECTOR, f"#findings th:nth-child({column})").get_attribute("aria-sort")

    before = order(1)
    page.driver.find_element(By.CSS_SELECTOR, "#findings th:nth-child(1) button").send_keys(Keys.ENTER)
    page.until(lambda: order(1) in {"ascending", "descending"} - {before}, "the key did nothing")
    assert page.names() == sorted(page.names(), reverse=order(1) == "descending")
    assert order(2) == "none"


def test_the_keyboard_opens_a_finding_asks_in_free_text_and_connects(found: Page) -> None:
    page = found
    name = page.names()[-1]
    last = page.driver.find_element(By.CSS_SELECTOR, "#findings tbody tr:last-child")
    page.answered(lambda: last.send_keys(Keys.ENTER), name)
    query = page.driver.find_element(By.ID, "query")
    query.send_keys(Keys.CONTROL, "a")
    page.answered(lambda: query.send_keys("air around the heart", Keys.ENTER), "air around the heart: ")
    assert query.get_attribute("maxlength") == "300"
    assert not page.driver.find_element(By.CSS_SELECTOR, ".ct-address").is_displayed(), "the address is not folded away"
    page.click("#change-server")
    page.until(page.driver.find_element(By.CSS_SELECTOR, ".ct-address").is_displayed, "the address cannot be opened")
    page.set("server_line", "")
    page.driver.find_element(By.CSS_SELECTOR, ".ct-address input").send_keys(Keys.ENTER)
    page.until(lambda: page.text("#server-line").startswith("Connected"), "Return after an address did nothing")
    page.until(lambda: not page.state("server_open"), "the address did not fold away again")


def test_the_draft_report_is_unfolded_and_copied(found: Page, server: LiveServer) -> None:
    page = found
    sent = str(server.infer("findings", "image=synthetic", output="json").params["draft_report"])
    assert "research only" in page.text("#open-draft") and not page.driver.find_elements(By.ID, "draft")
    page.click("#open-draft")
    page.until(lambda: page.text("#draft").split() == sent.split(), "the draft is not shown")
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": page.address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    page.click("#copy-draft")
    page.until(lambda: page.text("#status").startswith("The draft report was copied."), "nothing was said")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
    assert page.driver.execute_async_script(read) == sent
    assert "Not a diagnosis" in sent or "not a diagnosis" in sent, "the copy does not say what it is worth"
    page.click("#open-draft")
    page.until(lambda: not page.driver.find_elements(By.ID, "draft"), "the draft does not fold away")


@pytest.mark.parametrize(
    ("query", "words", "placed"),
    [
        (QUERY, ["unrelated texts on this scan", "Nearest finding: "], True),
        ("no pleural effusion", ["'no pleural effusion'", "it is asked as 'pleural effusion'"], True),
        ("asdf qwerty zxcv", ["The score means nothing", "None of its words"], False),
        ("Pleuraerguss links", ["The score means nothing", "It seems to be German"], False),
    ],
)
def test_a_free_text_is_told_in_words_and_nonsense_shows_no_place(
    page: Page, query: str, words: list[str], placed: bool, tmp_path: Path
) -> None:
    if page.state("scan_name") != "synthetic" or not page.state("has_scan"):
        page.open()
    page.set("show_anatomy", False)
    page.set("show_box", False)
    page.set("query", query)
    page.answered(lambda: page.click("#ask"), f"{query}: ")
    for word in words:
        assert word in page.text("#meaning")
    assert bool(page.driver.find_elements(By.CSS_SELECTOR, "#depth")) == placed
    page.until(
        lambda: (heat_coloured(page.settled("axial")).mean() > 0.001) == placed, "heat is not where it should be"
    )
    if keep := os.environ.get("CTFINDINGS_KEEP_PICTURES"):
        page.driver.save_screenshot(str(Path(keep) / f"{query.replace(' ', '_')}.png"))
