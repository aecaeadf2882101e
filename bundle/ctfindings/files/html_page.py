"""HTML pages from jinja2 templates: what is put into them is escaped, and a name that is missing is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: Path, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """A page as text.

    Args:
        template: the file.
        filters: by the names that the template has for them.
        values: what the template reads.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template.name).render(**values)
