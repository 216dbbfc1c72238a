"""The base of every record."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen; a field of an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
