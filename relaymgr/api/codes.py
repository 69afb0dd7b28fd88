"""Every code an error can carry, with its HTTP status and its meaning. docs/manager-api.md shows the same table."""

from __future__ import annotations

from typing import Final, NamedTuple


class Code(NamedTuple):
    """What a code stands for."""

    status: int
    meaning: str


CODES: Final[dict[str, Code]] = {
    "invalid_request": Code(422, "The request is not what the specification says; `faults` names every place."),
    "cursor_invalid": Code(422, "The cursor was not made by this listing in this order."),
    "sort_unknown": Code(422, "The listing cannot be sorted by this; `detail` says by what."),
    "filter_invalid": Code(422, "The listing has no such filter, or its value does not fit."),
    "query_invalid": Code(422, "The page asked for cannot be."),
    "malformed_request": Code(400, "The request cannot be read as HTTP or JSON at all."),
    "unauthorized": Code(401, "No token, or one that is unknown, expired or revoked."),
    "login_refused": Code(401, "Name and password do not belong together."),
    "forbidden": Code(403, "The role of the token is too low; `required_role` names the one needed."),
    "outside_scope": Code(403, "The token is scoped to ADs, and this reaches beyond them."),
    "not_found": Code(404, "No such resource, or none that the token's ADs let it see."),
    "oidc_not_configured": Code(404, "The service has no identity provider."),
    "oidc_refused": Code(401, "The identity provider, or what it said, did not let the user in."),
    "oidc_unavailable": Code(502, "The identity provider does not answer as it should."),
    "method_not_allowed": Code(405, "The resource does not know this method; `Allow` names those it knows."),
    "conflict": Code(409, "The state of the resource does not allow this now."),
    "name_taken": Code(409, "Another resource of this kind has the name."),
    "in_use": Code(409, "Something still refers to the resource; `detail` says what."),
    "host_key_not_pinned": Code(409, "The relay has no pinned host key; scan it, compare the fingerprint, pin it."),
    "no_credential": Code(409, "The relay has no credential."),
    "no_intent": Code(409, "The relay was never given an intent."),
    "not_applied": Code(409, "No change of ours was ever confirmed on the relay; there is nothing to go back to."),
    "no_drift": Code(409, "No drift is known that could be accepted or restored."),
    "relay_disabled": Code(409, "The relay is disabled; nothing of ours talks to it."),
    "confirm_window_open": Code(409, "A change of ours waits for its confirmation on the device; `job_id` names it."),
    "plan_expired": Code(409, "The plan is too old, or the device or the intent changed since; make another."),
    "plan_mismatch": Code(409, "The plan belongs to another relay or another kind of change."),
    "job_finished": Code(409, "The job has ended; there is nothing to cancel."),
    "rollout_finished": Code(409, "The rollout has ended."),
    "backup_too_large": Code(409, "The backups are too large to compare here."),
    "etag_mismatch": Code(412, "The resource changed since the ETag was given; read it again."),
    "etag_required": Code(428, "A write to this resource needs `If-Match` with the ETag last read."),
    "too_slow": Code(408, "The body did not come in time."),
    "too_large": Code(413, "The body is longer than the service reads."),
    "unsupported_media_type": Code(415, "The body is not `application/json`."),
    "capability_missing": Code(
        422, "The device cannot do this; `capability` names what it lacks. Nothing was touched."
    ),
    "unknown_reference": Code(422, "The body refers to something that does not exist or is not visible."),
    "idempotency_key_reused": Code(422, "The Idempotency-Key was used before with another request."),
    "credential_unusable": Code(422, "The credential's reference is not allowed, or its secret cannot be had."),
    "rate_limited": Code(429, "Too many attempts; `Retry-After` says when the next is looked at."),
    "internal": Code(500, "The service failed; its log has the request id."),
    "not_ready": Code(503, "The service, or its database, is not ready."),
    "device_error": Code(502, "Something is wrong with the device."),
    "device_unreachable": Code(504, "No session to the device could be had."),
    "device_deadline_exceeded": Code(504, "The device did not answer in time."),
    "device_login_refused": Code(502, "The device refused the credential."),
    "device_host_key_mismatch": Code(502, "The device showed another host key than the pinned one."),
    "device_session_lost": Code(502, "The session to the device broke."),
    "device_answer_unreadable": Code(502, "The device answered what cannot be parsed."),
    "device_busy": Code(409, "The device's configuration is locked by somebody else, or it has no free line."),
    "device_confirm_window_open": Code(409, "The device waits for the confirmation of a commit."),
    "device_changed": Code(409, "The device is not as it was when planned."),
    "device_refused_configuration": Code(409, "The device understood the configuration and refused it."),
    "device_not_configured": Code(409, "The manager lacks what it takes to reach the device; `detail` says what."),
    "device_circuit_open": Code(503, "The device failed too often just now and is left alone for a while."),
}
"""A code that is not listed is answered with 409 when another layer raised it."""
