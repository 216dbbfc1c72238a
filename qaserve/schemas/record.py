"""The base of every record."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, and strict about names: a field nobody knows is an error, not a shrug."""

    model_config = ConfigDict(frozen=True, extra="forbid")
