"""Readers: `formats` finds the parser, one module each; `mapping` finds the fields of a pair; `shapes` makes pairs."""

from ingest.readers import mapping
from ingest.readers.files import FileRead, Located, find_files, read_files
from ingest.readers.formats import EXCEL, SUFFIXES

__all__ = ["EXCEL", "SUFFIXES", "FileRead", "Located", "find_files", "mapping", "read_files"]
