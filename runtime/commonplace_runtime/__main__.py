"""Composition root: `commonplace api | worker | migrate | dev | teams | projects | keys`."""

from commonplace_runtime.entrypoints.cli import run


def main() -> None:
    """Run the command line."""
    run()


if __name__ == "__main__":
    main()
