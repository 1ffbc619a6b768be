"""What every running cluster of ours offers, whichever way it runs."""

import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from e2e.cluster.api import ApiClient
from e2e.cluster.cache import ClusterError

_KUBECTL_SECONDS: Final = 60.0


class RunningCluster(ABC):
    """A Kubernetes API that answers, and the kubectl that was built with it."""

    __slots__ = ()

    state_dir: Path
    bin_dir: Path

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """Credentials of a super-admin."""

    @property
    def kubectl(self) -> Path:
        return self.bin_dir / "kubectl"

    def environment(self) -> dict[str, str]:
        """
        This process's environment plus what `kubectl` and the client libraries need to find the cluster.

        kubectl's cache goes into the state directory too: in the home directory it would be left behind, and believed
        for hours by a later cluster that happens to get the same port.
        """
        cluster = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.state_dir / "kubectl-cache")}
        return {**os.environ, **cluster, "PATH": f"{self.bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}

    def run_kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = _KUBECTL_SECONDS) -> str:
        """Standard output of kubectl. Raises ClusterError with its standard error when it fails or takes too long."""
        try:
            ended = subprocess.run(
                [self.kubectl, *arguments],
                env=self.environment(),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"kubectl {' '.join(arguments)} took more than {seconds:.0f} s") from late
        if ended.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {ended.stderr.strip()}")
        return ended.stdout

    def api(self) -> ApiClient:
        """A new connection with the super-admin's credentials."""
        return ApiClient(self.kubeconfig)
