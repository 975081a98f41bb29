"""Fuzzing of what reads bytes that others wrote: the manifest, ONNX files, reference outputs, files of rows."""
