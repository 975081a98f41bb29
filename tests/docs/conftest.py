"""A browser for the tests of this folder."""

from helpers.web import browser, chromium, node, node_modules

__all__ = ["browser", "chromium", "node", "node_modules"]
