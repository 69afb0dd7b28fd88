"""What PyEZ, ncclient and paramiko raise, as DriverErrors.

PyEZ hides causes: a changed host key is a ConnectRefusedError whose `__context__` tells, a dropped session may come as
anything. So the whole chain of an exception is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from jnpr.junos import exception as pyez
from ncclient import NCClientError
from ncclient.operations.errors import TimeoutExpiredError
from ncclient.transport.errors import AuthenticationError, SSHUnknownHostError, TransportError

from relaymgr.drivers import ssh
from relaymgr.drivers.errors import (
    DeadlineExceeded,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.junos.refusals import refusal
from relaymgr.drivers.protocol import DeviceTarget


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


async def connect_error(target: DeviceTarget, port: int, error: BaseException) -> DriverError:
    """Why no session could be had; asks for the host key again where that may be the reason."""
    causes = list(chain(error))
    if any(isinstance(cause, (pyez.ConnectAuthError, AuthenticationError)) for cause in causes):
        return LoginRefused(target.name, "refused the credentials")
    if any(isinstance(cause, pyez.ConnectTimeoutError) for cause in causes):
        return DeadlineExceeded(target.name, "no NETCONF session in time")
    presented = await _other_key(target, port)
    if presented is not None:
        detail = f"presented the host key {presented}, which is not the pinned one"
        return HostKeyMismatch(target.name, detail, presented)
    if any(isinstance(cause, SSHUnknownHostError) for cause in causes):
        return HostKeyMismatch(target.name, "presented a host key that is not the pinned one")
    return Unreachable(target.name, f"no NETCONF session: {_words(causes)}")


async def _other_key(target: DeviceTarget, port: int) -> str | None:
    """Fingerprint of the key the device presents, if that is not the pinned one."""
    try:
        found = await ssh.presented_key(target, port)
    except DriverError:
        return None
    return found.fingerprint if found.fingerprint != ssh.fingerprint(target.host_key or "") else None


def operation_error(device: str, doing: str, error: BaseException) -> DriverError:
    """Why a call in an open session failed."""
    causes = list(chain(error))
    found: DriverError
    if any(isinstance(cause, (pyez.RpcTimeoutError, TimeoutExpiredError)) for cause in causes):
        found = DeadlineExceeded(device, f"no answer in time while doing {doing}")
    elif any(isinstance(cause, (pyez.ConnectClosedError, TransportError, OSError, EOFError)) for cause in causes):
        found = SessionLost(device, f"the session broke while doing {doing}")
    elif (refused := next((cause for cause in causes if isinstance(cause, pyez.RpcError)), None)) is not None:
        found = _refused(device, refused)
    elif any(isinstance(cause, NCClientError) for cause in causes):
        found = SessionLost(device, f"the session broke while doing {doing}: {type(causes[0]).__name__}")
    else:
        found = Garbage(device, f"its answer to {doing} cannot be read: {type(causes[-1]).__name__}")
    return found


def only_warnings(error: BaseException) -> bool:
    """Whether an RPC is reported as failed for warnings alone, as PyEZ does: it was done."""
    errors = error.errs if isinstance(error, pyez.RpcError) and isinstance(error.errs, list) else []
    return bool(errors) and all((told.get("severity") or "").strip() == "warning" for told in errors)


def _refused(device: str, error: pyez.RpcError) -> DriverError:
    told = error.rpc_error or {}
    if not told and not error.message:
        return SessionLost(device, "the session broke")
    message = told.get("message") or error.message or ""
    if isinstance(error, pyez.PermissionError):
        message = "permission denied"
    tag = error.rsp.findtext("error-tag") if error.rsp is not None else None
    return refusal(device, str(message), path=told.get("edit_path"), tag=tag, element=told.get("bad_element"))


def _words(causes: list[BaseException]) -> str:
    """The innermost words; of a library's errors, whose text holds no credential."""
    return next((str(cause) for cause in reversed(causes) if str(cause)), type(causes[0]).__name__)[:200]
