"""Every error that sish raises on purpose.

One root, so that ``except SishError`` catches all of them; a message says what was got, what was
wanted, and what to do next, on one line::

    SishError
    ├── SlideError          a slide cannot be used
    │   ├── SlideOpenError      not a readable slide (broken, empty, a folder, another format)
    │   ├── SlideReadError      it opened, and its pixels fail
    │   ├── MissingMppError     nothing tells its scale: give an mpp
    │   └── MissingMaskError    it has no mask where one is needed
    ├── LabelsError         a labels file does not fit
    ├── StoreError         an index folder cannot be used
    │   ├── IndexNotFoundError  there is none at this path
    │   ├── IndexExistsError    there is one at this path already
    │   ├── IndexFormatError    it is of another format version, or not one of ours
    │   ├── IndexCorruptError   its bytes are not the ones that were written
    │   ├── IndexLockedError    another process is writing to it
    │   ├── SlideExistsError    a slide of that id is in it already
    │   └── UnknownSlideError   no slide of that id is in it
    ├── EncoderMismatchError   codes of two encoders would be mixed
    │   └── FeatureMismatchError   features of one file are of another kind (also a SlideError)
    ├── WeightsError        a weights file or checkpoint cannot be used
    ├── QueryError          a search cannot be run as asked
    └── ParameterError      an argument is out of its range
"""

__all__ = [
    "EncoderMismatchError",
    "FeatureMismatchError",
    "IndexCorruptError",
    "IndexExistsError",
    "IndexFormatError",
    "IndexLockedError",
    "IndexNotFoundError",
    "LabelsError",
    "MissingMaskError",
    "MissingMppError",
    "ParameterError",
    "QueryError",
    "SishError",
    "SlideError",
    "SlideExistsError",
    "SlideOpenError",
    "SlideReadError",
    "StoreError",
    "UnknownSlideError",
    "WeightsError",
]


class SishError(Exception):
    """Root of every error that sish raises on purpose."""


class SlideError(SishError):
    """A slide cannot be used."""


class SlideOpenError(SlideError):
    """The file is not a readable slide."""


class SlideReadError(SlideError):
    """The slide opened, and reading its pixels failed."""


class MissingMppError(SlideError):
    """Nothing in the file tells its scale in micrometres per pixel."""


class MissingMaskError(SlideError):
    """An image has no mask, and what was asked looks at shapes."""


class LabelsError(SishError):
    """A labels file does not fit what was asked."""


class StoreError(SishError):
    """An index folder cannot be used."""


class IndexNotFoundError(StoreError):
    """There is no index at this path."""


class IndexExistsError(StoreError):
    """There is an index at this path already."""


class IndexFormatError(StoreError):
    """The folder is not an index, or one of a format version that this release cannot read."""


class IndexCorruptError(StoreError):
    """Bytes on disk are not the ones that were written."""


class IndexLockedError(StoreError):
    """Another process is writing to the index."""


class SlideExistsError(StoreError):
    """A slide of that id is in the index already."""


class UnknownSlideError(StoreError):
    """No slide of that id is in the index."""


class EncoderMismatchError(SishError):
    """Codes of two different encoders would be compared or mixed."""


class FeatureMismatchError(SlideError, EncoderMismatchError):
    """One file of features is of another encoder, length or patch size than the others."""


class WeightsError(SishError):
    """A weights file or checkpoint cannot be used."""


class QueryError(SishError):
    """A search cannot be run as it was asked."""


class ParameterError(SishError, ValueError):
    """An argument is out of its range."""
