"""Our API group as Python types. Pure."""
