"""The demo whose operator dies when everything is Ready, so that nobody releases the objects."""

from e2e.demo.__main__ import main
from e2e.demo.story import Story
from e2e.report import CheckFailed


class OperatorKilled(Story):
    def replay(self) -> None:
        self.stack.children["operator"].kill()
        self.stack.children["operator"].wait()
        with self.report.check("the session is accepted"):
            raise CheckFailed("the operator is dead")


if __name__ == "__main__":
    raise SystemExit(main(OperatorKilled))
