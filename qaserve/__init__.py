"""Search over question/answer pairs that explains itself."""

__version__ = "0.1.0"
