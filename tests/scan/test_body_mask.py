"""The body: with the lungs that it encloses, without the table, whether this lies apart or touches it."""

import numpy as np
import pytest

from bundle.ctfindings.scan.body_mask import body_mask


@pytest.mark.parametrize("rows", [range(6), range(10, 11)], ids=["thick and apart", "thin and touching"])
def test_the_body_has_its_lungs_and_not_the_table(rows: range) -> None:
    """An ellipse in rows 11 to 45 of 2.5 mm; the table is behind it."""
    x, y, _ = np.indices((64, 52, 20))
    body = ((x - 32) / 26) ** 2 + ((y - 28) / 18) ** 2 < 1
    table = np.isin(y, rows) & (x >= 4) & (x < 60)
    lungs = ((abs(x - 32) - 12) / 6) ** 2 + ((y - 28) / 9) ** 2 < 1
    hu = np.where(lungs, -850, np.where(body | table, 40, -1000))
    found = body_mask(hu, np.diag([2.0, 2.5, 3.0, 1.0]))
    assert 2 * (found & body).sum() / (found.sum() + body.sum()) > 0.98
    # Where the body lies on it, the border may be a voxel or two off.
    assert not (found & table)[abs(x - 32) > 12].any()
