"""Readers: `files` opens; `json_lines` and `delimited` parse; `shapes` says what the fields of a row mean."""

from ingest.readers.files import EXCEL, SUFFIXES, FileRead, Located, find_files, read_files

__all__ = ["EXCEL", "SUFFIXES", "FileRead", "Located", "find_files", "read_files"]
