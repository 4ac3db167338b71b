"""What schemathesis can't know of the service by its OpenAPI document, and what it is to check beside its own checks.

FUZZ_MODE says how the service runs: open, tokens or outage.
"""

import json
import os
import re

import schemathesis

MODE = os.environ["FUZZ_MODE"]


# What follows from a start: heartbeat, look, release. The document does not say so, since Bruno's import makes scripts of links that don't run.
OF_SESSION = ["start_session", "get_session", "release_session"]
OF_VIDEO = ["renew_video", "get_video", "release_video"]
LINKS = [
    ("/v1/users/{user}/sessions", "post", OF_SESSION, {"user": "$request.path.user", "session": "$response.body#/session"}),
    ("/v1/users/{user}/sessions/{session}", "put", OF_SESSION, {"user": "$request.path.user", "session": "$request.path.session"}),
    ("/", "post", OF_VIDEO, {"id": "$request.query.id"}),
]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The document is the same with and without a tokens file; where there is one, nothing is open."""
    for path, method, operations, parameters in LINKS:
        links = {it: {"operationId": it, "parameters": parameters} for it in operations}
        raw_schema["paths"][path][method]["responses"]["201"]["links"] = links
    if MODE == "tokens":
        for item in raw_schema["paths"].values():
            for operation in item.values():
                if "security" in operation:
                    operation["security"] = [it for it in operation["security"] if it]


@schemathesis.hook
def map_case(context, case):
    """Makes good requests what they are meant to be.

    A text in the release hook is JSON by `contentSchema`, which schemathesis does not read. And a kind is a part of a session's name, which it does
    not know: having released the `request` p1, it would complain that the playback p1 is still there.
    """
    if not is_good(case):
        return case
    if case.media_type == "text/plain" and isinstance(case.body, str):
        name = "".join(it for it in case.body if it.isprintable())[:64] or "x"
        case.body = json.dumps({"user": name, "session": name})
    if case.meta.phase.name == "stateful" and isinstance(case.query, dict):
        case.query.pop("kind", None)
    return case


@schemathesis.hook
def filter_case(context, case):
    """A schema counts characters where the service counts bytes: what is good by the one and too long by the other is left out."""
    return not (is_good(case) and any(len(it.encode()) > 256 for it in names(case)))


def is_good(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def names(case):
    parts = [case.path_parameters, case.query, case.body]
    values = [value for part in parts if isinstance(part, dict) for value in part.values()]
    return [value for value in values if isinstance(value, str)]


@schemathesis.check
def problem_is_documented(ctx, response, case):
    """A problem says the status that it has, and a reason that the document gives for that status of that call."""
    if "application/problem+json" not in response.headers.get("content-type", [""])[0]:
        return
    told = response.json()
    assert told["status"] == response.status_code, f"status {response.status_code} tells {told}"
    documented = case.operation.responses.find_by_status_code(response.status_code)
    if documented is not None:
        reasons = re.findall(r"`([a-z_]+)`:", documented.definition["description"])
        assert told["reason"] in reasons, f"{told['reason']} is none of the documented {reasons}"


@schemathesis.check
def error_is_a_problem(ctx, response, case):
    """Whatever goes wrong is told in one form, whether or not the document has that status (405 it has not)."""
    if response.status_code >= 400 and case.operation.path != "/readyz" and response.request.method != "HEAD":
        assert response.headers.get("content-type") == ["application/problem+json"], response.headers


@schemathesis.check
def request_has_an_id(ctx, response, case):
    """Every answer bears an id, whatever has happened."""
    assert response.headers.get("x-request-id"), response.headers
