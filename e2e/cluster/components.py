"""PURE: where a control plane keeps its files, and the command line of each of its programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
# Never dialled: kubeadm and the validation of Endpoints refuse a loopback address here.
_ADVERTISED: Final = "10.255.255.1"
SERVICE_SUBNET: Final = "10.96.0.0/16"

ETCD: Final = "etcd"
API_SERVER: Final = "kube-apiserver"
CONTROLLERS: Final = "kube-controller-manager"
START_ORDER: Final = (ETCD, API_SERVER, CONTROLLERS)
"""Ended in the opposite order: an API server without its etcd would wait a minute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """TCP ports on loopback."""

    api: int
    etcd: int
    etcd_peer: int
    controllers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The files of one control plane; `state` holds all of them and is removed with it."""

    state: Path

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def kubeadm_config(self) -> Path:
        return self.state / "kubeadm.yaml"

    @property
    def kubeconfig(self) -> Path:
        """Credentials of a super-admin, by the name that kubeadm gives the file."""
        return self.state / "super-admin.conf"

    @property
    def controllers_kubeconfig(self) -> Path:
        return self.state / "controller-manager.conf"

    @property
    def record(self) -> Path:
        """Which programs run as which processes: written by the supervisor, read by whoever attaches or stops."""
        return self.state / "record.json"

    def log(self, program: str) -> Path:
        return self.state / "logs" / f"{program}.log"


def kubeadm_config(
    layout: Layout,
    *,
    version: str,
    ports: Ports,
    node: str = "control-plane",
    address: str = LOOPBACK,
    advertised: str = _ADVERTISED,
) -> str:
    """
    What `kubeadm init phase` needs to issue certificates and kubeconfigs.

    address: where clients find the API server. advertised: what kubeadm and Endpoints are told.
    """
    return f"""\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {advertised}, bindPort: {ports.api}}}
nodeRegistration: {{name: {node}}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: commonplace
kubernetesVersion: v{version}
certificatesDir: "{layout.pki}"
encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: {address}:{ports.api}
apiServer: {{certSANs: [localhost, {LOOPBACK}]}}
networking: {{serviceSubnet: {SERVICE_SUBNET}}}
"""


def etcd_arguments(layout: Layout, ports: Ports) -> Sequence[str]:
    """Without fsync: the data is thrown away with the control plane."""
    pki = layout.pki / "etcd"
    client, peer = f"https://{LOOPBACK}:{ports.etcd}", f"https://{LOOPBACK}:{ports.etcd_peer}"
    return (
        f"--data-dir={layout.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--cert-file={pki / 'server.crt'}",
        f"--key-file={pki / 'server.key'}",
        f"--trusted-ca-file={pki / 'ca.crt'}",
        "--client-cert-auth",
        f"--peer-cert-file={pki / 'peer.crt'}",
        f"--peer-key-file={pki / 'peer.key'}",
        f"--peer-trusted-ca-file={pki / 'ca.crt'}",
        "--peer-client-cert-auth",
        "--socket-reuse-port",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )


def api_server_arguments(
    layout: Layout, ports: Ports, *, address: str = LOOPBACK, advertised: str = _ADVERTISED
) -> Sequence[str]:
    """As kubeadm would start it, but bound to `address`."""
    pki = layout.pki
    return (
        f"--bind-address={address}",
        f"--secure-port={ports.api}",
        "--permit-port-sharing",
        f"--advertise-address={advertised}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        f"--etcd-servers=https://{LOOPBACK}:{ports.etcd}",
        f"--etcd-cafile={pki / 'etcd' / 'ca.crt'}",
        f"--etcd-certfile={pki / 'apiserver-etcd-client.crt'}",
        f"--etcd-keyfile={pki / 'apiserver-etcd-client.key'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
    )


def controllers_arguments(layout: Layout, ports: Ports) -> Sequence[str]:
    """The default client limits would add 5 s to the start."""
    pki, kubeconfig = layout.pki, layout.controllers_kubeconfig
    return (
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports.controllers}",
        "--permit-port-sharing",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--use-service-account-credentials",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'sa.key'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
    )
