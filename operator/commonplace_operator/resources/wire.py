"""What every part of an object on the wire shares, and references to other objects."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """Base of every part: camelCase on the wire, frozen, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ObjectRef(Wire):
    """A reference by name."""

    name: str


class SecretRef(Wire):
    """A key of a Secret in the same namespace; without `key` it is the referrer's usual one."""

    name: str
    key: str | None = None
