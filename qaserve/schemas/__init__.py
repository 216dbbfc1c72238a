"""Everything that crosses a wire or a disk, as pydantic records."""
