"""Everything that aeedge raises on purpose.

AeedgeError
├── BundleError                  the bundle cannot be used
│   ├── CorruptBundleError       it is damaged: truncated, changed, or its halves do not belong together
│   └── IncompatibleBundleError  it is sound, but not for this version of aeedge, onnxruntime or this call
├── InputError (also ValueError) what the caller passed does not fit
└── VerificationError            the numbers differ from those recorded when the bundle was made

A message says what was expected, what came, where, and what to do. Anything else that escapes is a bug.
"""


class AeedgeError(Exception):
    """Base of all errors that aeedge raises on purpose."""


class BundleError(AeedgeError):
    """The bundle cannot be used."""


class CorruptBundleError(BundleError):
    """The bundle is damaged: a file is truncated, was changed, or belongs to another bundle."""


class IncompatibleBundleError(BundleError):
    """The bundle is sound, but does not fit this aeedge, this onnxruntime or what is asked of it."""


class InputError(AeedgeError, ValueError):
    """An array, a file or an argument does not fit: the message says what was expected and what came."""


class VerificationError(AeedgeError):
    """Computed numbers differ from the recorded ones by more than the stated tolerance."""
