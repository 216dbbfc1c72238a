"""The mathematics: pure NumPy, no I/O."""
