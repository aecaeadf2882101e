"""HTML pages from jinja2 templates; values are escaped, and a missing name is an error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: Path, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """Renders the template of that path with its variables ``values``, and further template filters by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template.name).render(**values)
