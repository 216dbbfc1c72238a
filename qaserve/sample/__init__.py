"""The sample corpus that ships with qaserve: questions about qaserve itself."""
