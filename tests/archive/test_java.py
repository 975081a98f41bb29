"""Which Java the tests of Spark start."""

import java
import pytest


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes folders with a `java` that says its version; none is known but these."""

    def make(name, version):
        program = tmp_path / name / "bin/java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n")
        program.chmod(0o755)
        return program.parent.parent

    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "CACHE", tmp_path / ".java")
    return make


@pytest.mark.parametrize(
    ("said", "release"), [("1.8.0_372", 8), ("11.0.2", 11), ("17", 17), ("17.0.19", 17), ("25-ea", 25)]
)
def test_release(made, said, release):
    assert java.version(made("jdk", said)) == release


def test_a_folder_without_java_has_no_release(tmp_path):
    assert java.version(tmp_path) is None


def test_java_home_comes_before_the_path(made, monkeypatch):
    monkeypatch.setenv("PATH", str(made("a", "21.0.1") / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(made("b", "17.0.1")))
    assert java.home().name == "b"


def test_what_is_too_old_is_passed_over(made, monkeypatch):
    monkeypatch.setenv("PATH", str(made("a", "17.0.1") / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(made("b", "11.0.1")))
    assert java.home().name == "a"


def test_debians_is_fetched_where_there_is_none(made, monkeypatch):
    made(".java/debian/usr/lib/jvm/java-17-openjdk", "17.0.1")
    monkeypatch.setattr(java.shutil, "which", lambda name: "/usr/bin/dpkg" if name == "dpkg" else None)
    assert java.home().name == "java-17-openjdk"


def test_no_java_and_no_debian_is_said(made):
    with pytest.raises(java.UnavailableError, match="no Java 17 or newer"):
        java.home()
