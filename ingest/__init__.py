"""Pairs in: read, label, build."""
