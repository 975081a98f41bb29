"""examples/node reads every bundle, and computes what aeedge does, with onnxruntime-node."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.consumers import DATA, Consumer

EXAMPLE = Path(__file__).parent.parent.parent / "examples/node"


@pytest.fixture(scope="module")
def place(tmp_path_factory, node_modules):
    """A copy of the example, where it finds its packages."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "node"))
    (folder.parent / "node_modules").symlink_to(node_modules)
    return folder


@pytest.fixture(scope="module")
def verify(place, node):
    def run(*words):
        return subprocess.run([node, place / "verify.mjs", *words], capture_output=True, text=True, timeout=120)

    return run


class TestNode(Consumer):
    @pytest.fixture
    def readme(self):
        return EXAMPLE / "README.md"

    def test_its_functions_can_be_imported(self, place, node, tmp_path):
        bundle = DATA / "bundle_v1_robust_int8"
        with np.load(bundle / "golden.npz") as golden:
            rows, latent, scores = golden["input"], golden["fp32.latent"], golden["fp32.score"]
        script = tmp_path / "mine.mjs"
        script.write_text(f"""
            import {{ encode, loadBundle, score }} from {json.dumps(str(place / "bundle.mjs"))};
            const bundle = await loadBundle({json.dumps(str(bundle))});
            const rows = Float32Array.from({json.dumps(rows.ravel().tolist())});
            const found = [await encode(bundle, rows, 'fp32'), await score(bundle, rows, 'fp32')];
            console.log(JSON.stringify(found.map((values) => Array.from(values))));
        """)
        result = subprocess.run([node, script], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        found = [np.array(values) for values in json.loads(result.stdout)]
        np.testing.assert_allclose(found[0].reshape(latent.shape), latent, rtol=1e-4, atol=4e-4)
        np.testing.assert_allclose(found[1], scores, rtol=1e-3, atol=4e-3)
