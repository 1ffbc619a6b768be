"""One name per client platform, however it calls itself."""


def normalise_platform(given: object) -> str | None:
    """`given` as it is stored and compared; None for anything that is no string. Blank means claude."""
    if not isinstance(given, str):
        return None
    name = "-".join(given.strip().lower().split())
    if not name:
        return "claude"
    if name == "transcript" or "codex" in name:
        return "codex"
    for known in ("cursor", "claude"):
        if known in name:
            return known
    return name
