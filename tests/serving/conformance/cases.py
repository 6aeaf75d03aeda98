"""What a case is: a request, the real server's answer and, where this package answers otherwise on purpose, ours."""

import dataclasses
import json
import re

import pytest

DIES = "dies"  # in place of a status: the real server does not outlive the request, so it is not asked


@dataclasses.dataclass(frozen=True)
class Ours:
    """An answer that differs from the real server's, and why."""

    reason: str
    status: int | str  # of HTTP, or the name of a gRPC code
    expected: object = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A request and its answer.

    expected: JSON that the body is equal to; or a string that the error contains, white space apart; None: any.
    """

    name: str
    body: object  # JSON, or the text or the bytes that are sent
    status: int | str
    expected: object = None
    path: str = "/v1/models/multi:predict"
    method: str = "POST"
    headers: dict = dataclasses.field(default_factory=dict)
    ours: Ours | None = None

    def answer_of(self, server):
        """The status and the body that `server` owes."""
        if self.ours and not server.real:
            return self.ours.status, self.ours.expected
        if self.status == DIES:
            pytest.skip("the real server does not outlive this request")
        return self.status, self.expected

    def sent(self):
        return self.body if isinstance(self.body, str | bytes | None) else json.dumps(self.body)


def parametrize(*tables):
    """One test a case, under the case's name."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for table in tables for case in table])


def check(server, case):
    """Sends a REST case and compares; returns the answer."""
    status, expected = case.answer_of(server)
    body = case.sent()
    answer = server.ask(case.method, case.path, body.encode() if isinstance(body, str) else body, case.headers)
    assert answer.status == status, answer.body
    if isinstance(expected, str) and status != 200:
        assert squeezed(expected) in squeezed(answer.json["error"]), answer.json["error"]
        assert set(answer.json) == {"error"}
    elif expected is not None:
        assert canonical(answer.json) == canonical(expected), answer.body
    if status == 200 and case.method == "POST":
        assert answer.headers["Content-Type"] == "application/json"
    return answer


def canonical(value):
    """JSON in one spelling, by which 1 and 1.0 differ and NaN equals itself."""
    return json.dumps(value, sort_keys=True)


def squeezed(text):
    """Without white space: the real server quotes a request with line breaks, ours in one line."""
    return re.sub(r"\s", "", text)
