"""The demo with its key revoked before the session is sent."""

from e2e.demo.__main__ import main
from e2e.demo.story import Story


class RevokedEarly(Story):
    def replay(self) -> None:
        kubectl = self.stack.cluster.kubectl
        kubectl("patch", "apikey", "checkout-agent", "--type=merge", "-p", '{"spec":{"revoked":true}}')
        kubectl("wait", "apikey/checkout-agent", "--for=condition=Revoked", "--timeout=30s")
        super().replay()


if __name__ == "__main__":
    raise SystemExit(main(RevokedEarly))
