"""
A real Kubernetes on this machine, for the demo and the tests, from nothing but package registries. Three ways:

- `control_plane`: etcd, API server and controllers on loopback. A real API without pods, in seconds, for any user.
- `node`: the same and one node that runs pods, in namespaces of its own. Root, no Docker, no image registry.
- `kind`: one node in a container, for a machine with Docker.

`gobuild` compiles what they run once into the user's cache (`build` names Kubernetes, `programs` the rest), `images`
writes container images without a daemon, a supervisor starts the programs and takes them away with their owner.
Standard library only: the demo runs this before, and without, anything heavier. Linux only.

    from e2e.cluster.control_plane import ControlPlane
    from e2e.cluster.node import Node
    from e2e.cluster.kind import Kind
"""
