"""
A real Kubernetes API on this machine, for the demo and the tests, from nothing but package registries.

`build` compiles etcd and the Kubernetes programs once into the user's cache, `control_plane` starts and stops them.
Standard library only: the demo runs this before, and without, anything heavier. Linux only.

    from e2e.cluster.build import ensure_built
    from e2e.cluster.control_plane import ControlPlane
"""
