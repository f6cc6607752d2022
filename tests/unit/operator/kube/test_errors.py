"""What the API server's errors mean: answers as Kubernetes 1.20 and 1.34 really give them."""

from typing import Any

import pytest

from seele_operator.kube.errors import (
    MAX_MESSAGE_LENGTH,
    AlreadyExists,
    Answer,
    ClusterError,
    ClusterUnavailable,
    Conflict,
    Expired,
    Gone,
    NamespaceTerminating,
    Refused,
    Target,
    error_of,
)

POD = Target("v1", "Pod", "r-trainer-0")
VOLCANO = Target("scheduling.volcano.sh/v1beta1", "PodGroup", "r")
COSCHEDULING = Target("scheduling.x-k8s.io/v1alpha1", "PodGroup", "r")
RUN = Target("seele.dev/v1alpha1", "SeeleRun", "r")


def answer(code: int, message: str, reason: str = "", *, retry_after: float | None = None, **details: Any) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return Answer(code, {**body, "reason": reason, "details": details}, "", retry_after)


QUOTA = (
    'pods "r-trainer-0" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, '
    "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=8"
)
NEW_QUOTA = 'pods "r-trainer-0" is forbidden: status unknown for quota: gpus, resources: pods'
POD_SECURITY = (
    'pods "r-trainer-0" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes (volume "run")'
)
LIMIT_RANGE = 'pods "r-trainer-0" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
WEBHOOK_DENIAL = 'admission webhook "policy.example.com" denied the request: images must come from our registry'
INVALID = 'Pod "r-trainer-0" is invalid: spec.containers[0].image: Required value'
RBAC = 'pods is forbidden: User "x" cannot create resource "pods" in API group "" in the namespace "default"'
TOO_LARGE = "Request entity too large: limit is 3145728"

REFUSALS = [
    ("QuotaExceeded", answer(403, QUOTA, "Forbidden", name="r-trainer-0", kind="pods")),
    ("QuotaExceeded", answer(403, NEW_QUOTA, "Forbidden", name="r-trainer-0", kind="pods")),
    ("Forbidden", answer(403, POD_SECURITY, "Forbidden", name="r-trainer-0", kind="pods")),
    ("Forbidden", answer(403, LIMIT_RANGE, "Forbidden", name="r-trainer-0", kind="pods")),
    ("Forbidden", answer(403, RBAC, "Forbidden", kind="pods")),
    ("Forbidden", answer(400, WEBHOOK_DENIAL, "images must come from our registry")),
    ("Invalid", answer(422, INVALID, "Invalid", name="r-trainer-0", kind="Pod", causes=[{"field": "spec"}])),
    ("Invalid", answer(400, 'Pod in version "v1" cannot be handled as a Pod: expect [ or n', "BadRequest")),
    ("Invalid", answer(413, TOO_LARGE, "RequestEntityTooLarge")),
    ("Error", answer(405, "the server does not allow this method on the requested resource", "MethodNotAllowed")),
    ("Error", answer(501, "not implemented")),
]


@pytest.mark.parametrize(("reason", "said"), REFUSALS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_refusal_is_named_in_the_api_servers_words_with_the_object_in_front(reason: str, said: Answer) -> None:
    error = error_of(POD, said)
    assert isinstance(error, Refused)
    assert error.refusal.reason == reason
    assert error.refusal.message == str(error) == f"Pod r-trainer-0: {said.body['message']}"


UNAVAILABLE = [
    answer(500, "etcdserver: request timed out"),
    answer(500, "etcdserver: leader changed"),
    answer(500, "context deadline exceeded"),
    answer(503, "the server is currently unable to handle the request", "ServiceUnavailable"),
    answer(504, "Timeout: request did not complete within requested timeout 34s", "Timeout"),
    answer(429, "Too many requests, please try again later.", "TooManyRequests"),
    answer(401, "Unauthorized", "Unauthorized"),
    Answer(502, {}, "<html><body>Bad Gateway</body></html>"),
    Answer(503, {}, ""),
]


@pytest.mark.parametrize("said", UNAVAILABLE, ids=lambda said: str(said.code))
def test_a_temporary_failure_is_tried_again(said: Answer) -> None:
    assert isinstance(error_of(POD, said), ClusterUnavailable)


def test_an_answer_without_a_message_is_described_by_its_code() -> None:
    assert str(error_of(POD, Answer(503))) == "Pod r-trainer-0: HTTP status 503"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (answer(429, "later", retry_after=7.0, retryAfterSeconds=1), 7.0),
        (answer(500, "later", "ServerTimeout", retryAfterSeconds=3), 3.0),
        (answer(503, "later"), None),
    ],
)
def test_the_server_may_say_when_to_come_back(said: Answer, seconds: float | None) -> None:
    error = error_of(POD, said)
    assert isinstance(error, ClusterUnavailable)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    "message",
    [
        'Internal error occurred: failed calling webhook "policy.example.com": Post "https://policy.ops.svc:443/check": '
        "dial tcp 10.0.0.1:443: connect: connection refused",
        'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: Post '
        '"https://policy.ops.svc:443/check?timeout=10s": context deadline exceeded',
        "failed to create typed patch object: .spec.ports: element 0: associative list with keys has an element that",
        'No API token found for service account "default", retry after the token is automatically created and added',
    ],
)
def test_some_server_errors_concern_one_object_and_not_the_api_server(message: str) -> None:
    error = error_of(POD, answer(500, message, "InternalError", causes=[{"message": message}]))
    assert isinstance(error, Refused)
    assert error.refusal.reason == "Error"


TERMINATING = (
    'pods "r-trainer-0" is forbidden: unable to create new content in namespace ml because it is being terminated'
)


@pytest.mark.parametrize(
    "said",
    [
        answer(
            403, TERMINATING, "Forbidden", causes=[{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]
        ),
        answer(403, TERMINATING, "Forbidden"),
        answer(404, 'namespaces "ml" not found', "NotFound", name="ml", kind="namespaces"),
    ],
)
def test_nothing_can_be_created_in_a_terminating_namespace(said: Answer) -> None:
    assert isinstance(error_of(POD, said), NamespaceTerminating)


CASES: list[tuple[type[ClusterError], Answer]] = [
    (Gone, answer(404, 'pods "r-trainer-0" not found', "NotFound", name="r-trainer-0", kind="pods")),
    (AlreadyExists, answer(409, 'pods "r-trainer-0" already exists', "AlreadyExists", name="r-trainer-0", kind="pods")),
    (Conflict, answer(409, 'Operation cannot be fulfilled on pods "r": the object has been modified', "Conflict")),
    (Conflict, answer(409, 'Operation cannot be fulfilled on resourcequotas "gpus": the object has been', "Conflict")),
    (Conflict, answer(422, "metadata.uid: field is immutable", "Invalid", causes=[{"field": "metadata.uid"}])),
    (Conflict, answer(422, "only one controller", "Invalid", causes=[{"field": "metadata.ownerReferences"}])),
    (Expired, answer(410, "The provided continue parameter is too old", "Expired")),
]


@pytest.mark.parametrize(("kind", "said"), CASES)
def test_the_object_is_not_what_the_request_assumed(kind: type[ClusterError], said: Answer) -> None:
    assert type(error_of(POD, said)) is kind


UNKNOWN_GROUP = Answer(404, {}, "404 page not found\n")
UNKNOWN_KIND = answer(404, "the server could not find the requested resource", "NotFound")


@pytest.mark.parametrize("said", [UNKNOWN_GROUP, UNKNOWN_KIND])
@pytest.mark.parametrize(("target", "scheduler"), [(VOLCANO, "Volcano"), (COSCHEDULING, "the coscheduling plugin")])
def test_a_missing_gang_scheduler_is_named(target: Target, scheduler: str, said: Answer) -> None:
    error = error_of(target, said)
    assert isinstance(error, Refused)
    assert error.refusal.reason == "GangUnavailable"
    assert f"install {scheduler}, or set spec.scheduling.gang to none" in error.refusal.message


@pytest.mark.parametrize("said", [UNKNOWN_GROUP, UNKNOWN_KIND])
def test_a_missing_definition_is_not_a_missing_object(said: Answer) -> None:
    error = error_of(RUN, said)
    assert isinstance(error, Refused)
    assert error.refusal.message == ("SeeleRun r: this cluster does not serve the kind SeeleRun of seele.dev/v1alpha1")


def test_a_message_without_end_is_cut_short() -> None:
    error = error_of(POD, answer(403, "no" * MAX_MESSAGE_LENGTH, "Forbidden"))
    assert len(str(error)) == len("Pod r-trainer-0: ") + MAX_MESSAGE_LENGTH
    assert str(error).endswith("…")
