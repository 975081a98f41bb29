"""From torch to ONNX graphs, and their rewriting for onnxruntime."""
