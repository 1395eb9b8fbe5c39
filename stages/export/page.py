"""Pages for people, from the templates beside this module."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup


def fill_template(name: str, **values: Any) -> str:
    """Return a template filled, with the style that all pages share; whatever is not `Markup` is escaped.

    Raises:
        jinja2.UndefinedError: if the template asks for a value that is not given.
    """
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = Markup((folder / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(name).render(style=style, **values)
