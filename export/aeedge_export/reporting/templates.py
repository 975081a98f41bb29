"""Templates of HTML pages; all extend base.html, which has the styles."""

from __future__ import annotations

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template
from markupsafe import Markup, escape

from aeedge_export.reporting import palette


def template(name: str, package: str = "aeedge_export.reporting") -> Template:
    """A template of `package`, with escaping; base.html is found from everywhere."""
    loaders = [PackageLoader(one, ".") for one in dict.fromkeys((package, "aeedge_export.reporting"))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"colours": palette.declarations, "breakable": breakable, "with_options": with_options}
    return environment.get_template(name)


def breakable(name: str) -> Markup:
    """A name that lines may break after / _ . : and -, rather than within words."""
    return Markup(re.sub(r"(?<=[/_.:-])(?=\w)", "<wbr>", str(escape(name))))


def with_options(text: str) -> Markup:
    """A sentence whose options, such as --family pca, stay on one line."""
    return Markup(re.sub(r"--[a-z-]+( [a-z0-9]+(?=[;.,)]))?", r"<code>\g<0></code>", str(escape(text))))
