"""The exceptions of aeedge.

AeedgeError
├── BundleError                  the bundle cannot be used
│   ├── CorruptBundleError       it is damaged: a file is truncated, changed, or of another bundle
│   └── IncompatibleBundleError  it needs another version of aeedge or onnxruntime, or lacks what a call needs
├── InputError (also ValueError) an argument, array or file does not fit
└── VerificationError            the outputs differ from the recorded reference outputs

A message names what was expected, what came, where, and what to do. Too little memory is a MemoryError. Any other
exception is a bug.
"""


class AeedgeError(Exception):
    """Base of all exceptions of aeedge."""


class BundleError(AeedgeError):
    """The bundle cannot be used."""


class CorruptBundleError(BundleError):
    """The bundle is damaged: a file is truncated, was changed, or belongs to another bundle."""


class IncompatibleBundleError(BundleError):
    """The bundle needs another version of aeedge or onnxruntime, or lacks what a call needs."""


class InputError(AeedgeError, ValueError):
    """An argument, array or file does not fit."""


class VerificationError(AeedgeError):
    """Outputs differ from the recorded reference outputs by more than the tolerance."""


def of_system(error: Exception) -> bool:
    """Whether the system raised an error, or Python; not a signal handler, whose TimeoutError is an OSError, too."""
    return not isinstance(error, OSError) or error.errno is not None
