"""examples/cpp compiles without warnings, reads every bundle, and computes what aeedge does, with onnxruntime's C++."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import onnxruntime_headers
import pytest
from debian_packages import UnavailableError
from helpers import tampering
from helpers.consumers import DATA, Consumer, copied, refused

EXAMPLE = Path(__file__).parent.parent.parent / "examples/cpp"
CHECKED = ["-Werror", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def root():
    """The folder with onnxruntime's headers and library; where a machine lacks them tests skip, in CI they fail."""
    try:
        for program in ("g++", "cmake"):
            if not shutil.which(program):
                raise UnavailableError(f"there is no {program} on the PATH")
        if subprocess.run(["g++", "-fsyntax-only", "-include", "zlib.h", "-x", "c++", "/dev/null"]).returncode:
            raise UnavailableError("there are no headers of zlib; install zlib1g-dev")
        return onnxruntime_headers.root()
    except UnavailableError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(f"NOTHING WAS TESTED: {error}")


@pytest.fixture(scope="module")
def program(root, tmp_path_factory):
    """Compiled as README.md says, and with checks of every access to memory."""
    made = tmp_path_factory.mktemp("cpp") / "aeedge_verify"
    text = (EXAMPLE / "README.md").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("g++ ")]
    words = shlex.split(line.replace("$ONNXRUNTIME_ROOT", str(root)))
    assert words[-2:] == ["-o", "aeedge_verify"]
    assert {"-Wall", "-Wextra"} <= set(words)
    done([*words[:-1], made, *CHECKED], cwd=EXAMPLE)
    return made


@pytest.fixture(scope="module")
def verify(program):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # onnxruntime keeps some memory to the end

    def run(*words):
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=120, env=environment)

    return run


def done(words, **options):
    result = subprocess.run(words, capture_output=True, text=True, timeout=600, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class TestCpp(Consumer):
    @pytest.fixture
    def readme(self):
        return EXAMPLE / "README.md"

    def test_a_graph_of_another_bundle_or_role_is_refused(self, verify, tmp_path):
        bundle = copied("bundle_v1", tmp_path)
        other = (DATA / "bundle_v1_scorer/encoder.onnx").read_bytes()
        tampering.replace_graph(bundle, "encoder.onnx", other)
        refused(verify(bundle), "encoder.onnx", "another bundle")

    def test_cmake(self, root, tmp_path):
        done(["cmake", "-S", EXAMPLE, "-B", tmp_path, f"-DONNXRUNTIME_ROOT={root}", "-DCMAKE_BUILD_TYPE=Debug"])
        done(["cmake", "--build", tmp_path])
        assert "verified with onnxruntime" in done([tmp_path / "aeedge_verify", DATA / "bundle_v1"])
