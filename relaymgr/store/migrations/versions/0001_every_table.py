"""Every table of the first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.String(32)
When = sa.DateTime(timezone=True)
Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TABLES = (
    "ads",
    "audit",
    "events",
    "leases",
    "rollouts",
    "users",
    "credentials",
    "sites",
    "tokens",
    "relays",
    "backups",
    "channels",
    "drift",
    "intent_revisions",
    "jobs",
    "pim_neighbors",
    "plans",
    "rollout_relays",
    "statistics",
    "tunnels",
    "job_events",
)
"""Those others refer to come first."""


def upgrade() -> None:
    """Make every table."""
    _what_is_managed()
    _what_is_done()
    _what_is_seen()


def downgrade() -> None:
    """Drop every table."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _what_is_managed() -> None:
    op.create_table(
        "ads",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("asn", Whole, nullable=True),
        sa.Column("contact", sa.Text(), nullable=True),
        sa.Column("prefixes", sa.JSON(), nullable=False),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("updated_at", When, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ads")),
        sa.UniqueConstraint("name", name=op.f("uq_ads_name")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", When, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "users",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("ad_ids", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("last_login_at", When, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
        sa.UniqueConstraint("subject", name=op.f("uq_users_subject")),
    )
    op.create_table(
        "credentials",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("updated_at", When, nullable=False),
        sa.ForeignKeyConstraint(["ad_id"], ["ads.id"], name=op.f("fk_credentials_ad_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credentials")),
        sa.UniqueConstraint("name", name=op.f("uq_credentials_name")),
    )
    op.create_table(
        "sites",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("updated_at", When, nullable=False),
        sa.ForeignKeyConstraint(["ad_id"], ["ads.id"], name=op.f("fk_sites_ad_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sites")),
        sa.UniqueConstraint("name", name=op.f("uq_sites_name")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("ad_ids", sa.JSON(), nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("expires_at", When, nullable=True),
        sa.Column("last_used_at", When, nullable=True),
        sa.Column("revoked_at", When, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
    op.create_table(
        "relays",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", Whole, nullable=True),
        sa.Column("netconf_port", Whole, nullable=True),
        sa.Column("legacy_ssh", sa.Boolean(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("connect_timeout_seconds", sa.Float(), nullable=False),
        sa.Column("rpc_timeout_seconds", sa.Float(), nullable=False),
        sa.Column("commit_timeout_seconds", sa.Float(), nullable=False),
        sa.Column("poll_interval_seconds", Whole, nullable=False),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("site_id", Id, nullable=True),
        sa.Column("credential_id", Id, nullable=True),
        sa.Column("host_key", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("updated_at", When, nullable=False),
        sa.Column("intent", sa.JSON(), nullable=True),
        sa.Column("intent_version", Whole, nullable=False),
        sa.Column("applied_intent_version", Whole, nullable=True),
        sa.Column("applied_scope", sa.JSON(), nullable=False),
        sa.Column("applied_text", sa.Text(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=True),
        sa.Column("capabilities", sa.JSON(), nullable=True),
        sa.Column("reachability", sa.Text(), nullable=False),
        sa.Column("reachability_reason", sa.Text(), nullable=True),
        sa.Column("polled_at", When, nullable=True),
        sa.Column("poll_started_at", When, nullable=True),
        sa.Column("poll_seconds", sa.Float(), nullable=True),
        sa.Column("stale", sa.JSON(), nullable=False),
        sa.Column("active_tunnels", Whole, nullable=True),
        sa.Column("active_channels", Whole, nullable=True),
        sa.Column("drift_state", sa.Text(), nullable=False),
        sa.Column("drift_checked_at", When, nullable=True),
        sa.Column("window_job_id", Id, nullable=True),
        sa.Column("window_until", When, nullable=True),
        sa.ForeignKeyConstraint(["ad_id"], ["ads.id"], name=op.f("fk_relays_ad_id")),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], name=op.f("fk_relays_credential_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_relays_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relays")),
        sa.UniqueConstraint("name", name=op.f("uq_relays_name")),
    )
    op.create_index("ix_relays_ad_id", "relays", ["ad_id"])
    op.create_table(
        "intent_revisions",
        sa.Column("id", Id, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("version", Whole, nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.ForeignKeyConstraint(
            ["relay_id"], ["relays.id"], name=op.f("fk_intent_revisions_relay_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intent_revisions")),
        sa.UniqueConstraint("relay_id", "version", name=op.f("uq_intent_revisions_relay_id_version")),
    )
    op.create_table(
        "plans",
        sa.Column("id", Id, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("intent_version", Whole, nullable=True),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.Column("diff_source", sa.Text(), nullable=False),
        sa.Column("commands", sa.Text(), nullable=False),
        sa.Column("desired_scope", sa.JSON(), nullable=False),
        sa.Column("desired_text", sa.Text(), nullable=False),
        sa.Column("before_scope", sa.JSON(), nullable=False),
        sa.Column("before_text", sa.Text(), nullable=False),
        sa.Column("device_fingerprint", sa.Text(), nullable=False),
        sa.Column("new_scope", sa.JSON(), nullable=False),
        sa.Column("new_text", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("expires_at", When, nullable=False),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_plans_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    op.create_index("ix_plans_relay_id", "plans", ["relay_id"])


def _what_is_done() -> None:
    op.create_table(
        "audit",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("at", When, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("ticket", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_ad_id", "audit", ["ad_id"])
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_resource_id", "audit", ["resource_id"])
    op.create_table(
        "events",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("at", When, nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("relay_id", Id, nullable=True),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_ad_id", "events", ["ad_id"])
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_relay_id", "events", ["relay_id"])
    op.create_table(
        "rollouts",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("waves", sa.JSON(), nullable=False),
        sa.Column("current_wave", Whole, nullable=False),
        sa.Column("error_budget", Whole, nullable=False),
        sa.Column("confirm_minutes", Whole, nullable=False),
        sa.Column("probe", sa.Boolean(), nullable=False),
        sa.Column("pause_reason", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("ticket", sa.Text(), nullable=True),
        sa.Column("version", Whole, nullable=False),
        sa.Column("created_at", When, nullable=False),
        sa.Column("updated_at", When, nullable=False),
        sa.Column("finished_at", When, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("relay_id", Id, nullable=True),
        sa.Column("rollout_id", Id, nullable=True),
        sa.Column("plan_id", Id, nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("progress", Whole, nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("ticket", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", When, nullable=True),
        sa.Column("attempt", Whole, nullable=False),
        sa.Column("run_after", When, nullable=True),
        sa.Column("confirm_deadline", When, nullable=True),
        sa.Column("created_at", When, nullable=False),
        sa.Column("started_at", When, nullable=True),
        sa.Column("finished_at", When, nullable=True),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_jobs_relay_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_relay_id", "jobs", ["relay_id"])
    op.create_index("ix_jobs_rollout_id", "jobs", ["rollout_id"])
    op.create_index("jobs_state_lease", "jobs", ["state", "lease_until"])
    op.create_table(
        "rollout_relays",
        sa.Column("rollout_id", Id, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("wave", Whole, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job_id", Id, nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["relay_id"], ["relays.id"], name=op.f("fk_rollout_relays_relay_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_relays_rollout_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "relay_id", name=op.f("pk_rollout_relays")),
    )
    op.create_table(
        "job_events",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("at", When, nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("progress", Whole, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index("ix_job_events_job_id", "job_events", ["job_id"])


def _what_is_seen() -> None:
    op.create_table(
        "backups",
        sa.Column("id", Id, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("taken_at", When, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", Whole, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("job_id", Id, nullable=True),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_backups_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index("backups_relay", "backups", ["relay_id", "id"])
    op.create_table(
        "channels",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("group_address", sa.Text(), nullable=False),
        sa.Column("source_address", sa.Text(), nullable=True),
        sa.Column("upstream_interface", sa.Text(), nullable=True),
        sa.Column("downstream_interfaces", sa.JSON(), nullable=False),
        sa.Column("gateways", Whole, nullable=True),
        sa.Column("packets", Whole, nullable=True),
        sa.Column("bytes", Whole, nullable=True),
        sa.Column("packets_per_second", sa.Float(), nullable=True),
        sa.Column("kilobits_per_second", sa.Float(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("uptime_seconds", Whole, nullable=True),
        sa.Column("seen_at", When, nullable=False),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_channels_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
    )
    op.create_index("channels_group", "channels", ["group_address", "id"])
    op.create_index("channels_relay", "channels", ["relay_id", "id"])
    op.create_table(
        "drift",
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.Column("actual_text", sa.Text(), nullable=False),
        sa.Column("actual_scope", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=True),
        sa.Column("changed_at", When, nullable=True),
        sa.Column("checked_at", When, nullable=False),
        sa.Column("since", When, nullable=True),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_drift_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("relay_id", name=op.f("pk_drift")),
    )
    op.create_table(
        "pim_neighbors",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("uptime_seconds", Whole, nullable=True),
        sa.Column("hold_time_seconds", Whole, nullable=True),
        sa.Column("priority", Whole, nullable=True),
        sa.Column("pim_version", Whole, nullable=True),
        sa.Column("seen_at", When, nullable=False),
        sa.ForeignKeyConstraint(
            ["relay_id"], ["relays.id"], name=op.f("fk_pim_neighbors_relay_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pim_neighbors")),
    )
    op.create_index("ix_pim_neighbors_relay_id", "pim_neighbors", ["relay_id"])
    op.create_table(
        "statistics",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("at", When, nullable=False),
        sa.Column("active_tunnels", Whole, nullable=True),
        sa.Column("tunnel_limit", Whole, nullable=True),
        sa.Column("active_streams", Whole, nullable=True),
        sa.Column("stream_limit", Whole, nullable=True),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_statistics_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_statistics")),
    )
    op.create_index("statistics_relay_at", "statistics", ["relay_id", "at"])
    op.create_table(
        "tunnels",
        sa.Column("id", Whole, autoincrement=True, nullable=False),
        sa.Column("relay_id", Id, nullable=False),
        sa.Column("ad_id", Id, nullable=True),
        sa.Column("gateway_address", sa.Text(), nullable=False),
        sa.Column("gateway_port", Whole, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("vendor_state", sa.Text(), nullable=True),
        sa.Column("interface", sa.Text(), nullable=True),
        sa.Column("local_address", sa.Text(), nullable=True),
        sa.Column("inactivity_timeout_seconds", Whole, nullable=True),
        sa.Column("uptime_seconds", Whole, nullable=True),
        sa.Column("channels", Whole, nullable=True),
        sa.Column("packets", Whole, nullable=True),
        sa.Column("bytes", Whole, nullable=True),
        sa.Column("requests", Whole, nullable=True),
        sa.Column("updates", Whole, nullable=True),
        sa.Column("packets_per_second", sa.Float(), nullable=True),
        sa.Column("first_seen_at", When, nullable=False),
        sa.Column("seen_at", When, nullable=False),
        sa.ForeignKeyConstraint(["relay_id"], ["relays.id"], name=op.f("fk_tunnels_relay_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tunnels")),
        sa.UniqueConstraint(
            "relay_id", "gateway_address", "gateway_port", name=op.f("uq_tunnels_relay_id_gateway_address_gateway_port")
        ),
    )
    op.create_index("tunnels_ad", "tunnels", ["ad_id", "id"])
    op.create_index("tunnels_gateway", "tunnels", ["gateway_address", "id"])
    op.create_index("tunnels_relay", "tunnels", ["relay_id", "id"])
