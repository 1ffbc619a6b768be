"""The same story on a cluster that runs pods: Helm installs the operator, and a managed MemoryRuntime runs the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field

from e2e.demo.stack import Cluster
from e2e.demo.story import SAMPLES, Story
from e2e.site import SAMPLE_URL, SYSTEM, TENANT, PodCluster, Site


@dataclass(kw_only=True)
class ManagedStack:
    """What the story needs of a stack, without a process of the demo's own."""

    site: Site
    cluster: Cluster = field(init=False)

    def __post_init__(self) -> None:
        cluster: PodCluster = self.site.cluster
        self.cluster = Cluster(
            program=str(cluster.kubectl),
            environ=cluster.environment(),
            namespace=TENANT,
            kubeconfig=str(cluster.kubeconfig),
        )

    @property
    def api_url(self) -> str:
        """The NodePort of the API."""
        return self.site.api_url

    def last_lines(self) -> str:
        """What the cluster says, for a failure."""
        return self.site.describe("memoryruntime,memoryteam,apikey")


@dataclass(kw_only=True)
class ManagedStory(Story):
    """The demo's story with `management: Managed`."""

    stack: ManagedStack  # type: ignore[assignment]  # the parts that a story uses are the same
    ready_seconds: float = 240

    def install(self) -> None:
        """Helm install, and a namespace whose pods must pass restricted Pod Security."""
        site = self.stack.site
        with self.report.step("helm install charts/commonplace"):
            for namespace in (SYSTEM, TENANT):
                site.kubectl("create", "namespace", namespace)
                site.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
            site.install()
            site.open_node_port()

    def apply_samples(self) -> None:
        """The samples with the managed runtime in place of the external one."""
        apply: Callable[..., str] = self.stack.cluster.kubectl
        for file in ("managed/runtime.yaml", "team.yaml", "apikey.yaml", "quota.yaml"):
            text = (SAMPLES / file).read_text().replace(SAMPLE_URL, self.stack.api_url)
            self.report.say(apply("apply", "-f", "-", stdin=text))

    def wait_ready(self) -> None:
        """Until every object is Ready, and the node has heard of it: its NodePort follows a moment later."""
        super().wait_ready()
        self.stack.site.reach_api()
