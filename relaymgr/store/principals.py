"""Who asks, what they may do, and what of the database they may see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from relaymgr.store.tables import Relay, TunnelRow


class Role(StrEnum):
    """What somebody may do; each includes the ones before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 viewer, 1 operator, 2 admin."""
        return list(Role).index(self)

    def includes(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        return self.rank >= needed.rank


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose token was accepted."""

    actor: str
    """Name for audit rows: `token:NAME` or `user:NAME`."""
    role: Role
    ad_ids: frozenset[str] = frozenset()
    """ADs the token is scoped to; empty: every AD, and what has none."""
    token_id: str | None = None
    user_id: str | None = None

    @property
    def scoped(self) -> bool:
        """Whether it sees only some ADs."""
        return bool(self.ad_ids)

    def sees_ad(self, ad_id: str | None) -> bool:
        """Whether something owned by `ad_id` (None: by nobody) is visible."""
        return not self.ad_ids or ad_id in self.ad_ids


def visible_in_ad(principal: Principal, column: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Rows whose AD column the principal sees; what no AD owns only an unscoped one."""
    return column.in_(sorted(principal.ad_ids)) if principal.scoped else true()


def visible_relays(principal: Principal) -> ColumnElement[bool]:
    """Relays owned by its ADs."""
    return visible_in_ad(principal, Relay.ad_id)


def visible_of_relays(
    principal: Principal, column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None]
) -> ColumnElement[bool]:
    """Rows of any table whose `relay_id` column names a relay it sees; rows of no relay only when unscoped."""
    if not principal.scoped:
        return true()
    return column.in_(select(Relay.id).where(visible_relays(principal)))


def visible_tunnels(principal: Principal) -> ColumnElement[bool]:
    """Tunnels to its relays, and tunnels whose gateway is in its ADs, whoever owns the relay."""
    if not principal.scoped:
        return true()
    return or_(visible_in_ad(principal, TunnelRow.ad_id), visible_of_relays(principal, TunnelRow.relay_id))
