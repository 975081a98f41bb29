"""Packages from npm and a browser for the tests of this folder."""

from helpers.web import browser, chromium, examples, node, node_modules

__all__ = ["browser", "chromium", "examples", "node", "node_modules"]
