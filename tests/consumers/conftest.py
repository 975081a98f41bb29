"""What consumers in other languages need: packages from npm, and a browser; made on first use (tools/)."""

import os

import chromium as browser
import node_packages
import pytest
from debian_packages import UnavailableError


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
    """The browser's program, and the environment to start it in."""
    return _or_skip(browser.command)


def _or_skip(make):
    """What `make` returns; where a machine lacks it the test is skipped, in CI it fails."""
    try:
        return make()
    except UnavailableError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(f"NOTHING WAS TESTED: {error}")
