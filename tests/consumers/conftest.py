"""What consumers in other languages need: packages from npm, and a browser; made on first use (tools/)."""

import os

import chromium as browser_program
import node_packages
import pytest
from debian_packages import UnavailableError
from helpers.browsers import Browser, served


@pytest.fixture(scope="session")
def node():
    """The program node."""
    return _or_skip(node_packages.node)


@pytest.fixture(scope="session")
def node_modules():
    """The folder node_modules with what examples/package.json names."""
    return _or_skip(node_packages.node_modules)


@pytest.fixture(scope="session")
def chromium():
    """The browser's program."""
    return _or_skip(browser_program.command)


def _or_skip(make):
    """What `make` returns; where a machine lacks it the test is skipped, in CI it fails."""
    try:
        return make()
    except UnavailableError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(f"NOTHING WAS TESTED: {error}")


@pytest.fixture(scope="session")
def browser(node, node_modules, chromium):
    """A headless Chromium."""
    found = Browser(node, node_modules, chromium)
    yield found
    found.close()


@pytest.fixture(scope="session")
def examples(node_modules):
    """The URL at which the folder examples is served."""
    with served(node_modules) as url:
        yield url
