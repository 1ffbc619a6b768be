"""The plaintext of a key, wrapped so that no log line, exception or repr can show it by accident."""

from commonplace_runtime import contract


class Token:
    """
    A token on its way into a Secret. `reveal()` is called where the Secret is rendered and nowhere else.
    """

    __slots__ = ("_plaintext",)

    def __init__(self, plaintext: str) -> None:
        self._plaintext = plaintext

    def reveal(self) -> str:
        """The plaintext."""
        return self._plaintext

    @property
    def hash(self) -> str:
        """SHA-256, hexadecimal: what the database holds."""
        return contract.hash_token(self._plaintext)

    @property
    def id(self) -> str | None:
        """The public id inside the token, None for a token of another shape."""
        return contract.token_id(self._plaintext)

    def __repr__(self) -> str:
        return "Token(***)"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a token is not serialised")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._plaintext == self._plaintext

    def __hash__(self) -> int:
        return hash(self._plaintext)
