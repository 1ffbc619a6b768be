"""`python -m e2e.images` (`make images`): the images of operator and runtime as archives, without Docker."""

import sys

from e2e.cluster.cache import ClusterError
from e2e.images import ensure_images


def main() -> int:
    """Print the archives' paths."""
    try:
        for archive in ensure_images(lambda line: print(f"images: {line}", file=sys.stderr, flush=True)):
            print(archive)
    except ClusterError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
