"""Builds in Qdrant: pairs, vectors and searches."""
