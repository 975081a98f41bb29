"""Templates of HTML pages; all extend base.html, which has the styles."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template


def template(name: str, package: str = "aeedge_export.reporting") -> Template:
    """A template of `package`, with escaping; base.html is found from everywhere."""
    loaders = [PackageLoader(one, ".") for one in dict.fromkeys((package, "aeedge_export.reporting"))]
    return Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)
