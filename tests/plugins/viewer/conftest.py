"""A server with the shipped weights on synthetic scans, a viewer over it, and its page in headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.plugins.monailabel.live_server import LiveServer, running

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    from tests.plugins.viewer.browser import ANSWER_SECONDS, CHROMIUM, DRIVER, ROOT, Page, viewing
except ModuleNotFoundError:  # the tests of the page skip themselves
    pass


@pytest.fixture(scope="package")
def studies(phantom_scan: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    image = nib.load(phantom_scan[0])
    hu = np.asarray(image.dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, image.affine), folder / "synthetic.nii.gz")
    nib.save(nib.Nifti1Image(hu + np.int16(1), image.affine), folder / "another.nii.gz")
    return folder


@pytest.fixture(scope="package")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(ROOT, studies, tmp_path_factory.mktemp("server"), []) as live:
        yield live


@pytest.fixture(scope="package")
def viewer(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a viewer that is connected to the server."""
    key = ("--api-key", str(server.work / "api_key"))
    with viewing(server, tmp_path_factory.mktemp("viewer") / "output.txt", *key) as address:
        yield address


@pytest.fixture(scope="package")
def page(viewer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    looks = ["--headless=new", "--disable-gpu", "--force-device-scale-factor=1", "--window-size=1440,1000"]
    for argument in ["--no-sandbox", f"--user-data-dir={profile}", *quiet, *looks]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(ANSWER_SECONDS)
    try:
        driver.get(viewer + "/index.html")
        page = Page(driver, viewer)
        page.until(lambda: page.text("#server-line").startswith("Connected: CT Findings"), "the viewer did not connect")
        yield page
    finally:
        driver.quit()


@pytest.fixture
def found(page: Page) -> Page:
    """The page with the findings of the synthetic scan."""
    if page.state("scan_name") != "synthetic" or not page.names() or page.state("busy"):
        page.open_and_find()
    return page
