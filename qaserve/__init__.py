"""Search over question/answer pairs that explains itself."""

__version__ = "0.2.0.dev0"
