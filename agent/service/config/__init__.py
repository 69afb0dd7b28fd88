"""The configuration file: TOML in, frozen models out, every fault told with its line."""

from agent.service.config.checks import listen_address
from agent.service.config.discovery_section import DiscoveryMethod, DiscoverySection
from agent.service.config.errors import ConfigurationError, Fault
from agent.service.config.failover_section import FailoverSection
from agent.service.config.frr_section import FrrSection
from agent.service.config.loader import load, parse, read
from agent.service.config.pim_section import PimSection
from agent.service.config.policy_section import PolicyAction, PolicyRule, PolicySection
from agent.service.config.render import render, show_defaults
from agent.service.config.sections import (
    ApiSection,
    Configuration,
    DataplaneSection,
    EngineChoice,
    GatewayMode,
    GatewayRelay,
    GatewaySection,
    IgmpSection,
    LogFormat,
    LogLevel,
    LogSection,
    MldSection,
    Oversize,
    QuerierSection,
    RelaySection,
    StaticJoin,
)
from agent.service.model import Role

__all__ = [
    "ApiSection",
    "Configuration",
    "ConfigurationError",
    "DataplaneSection",
    "DiscoveryMethod",
    "DiscoverySection",
    "EngineChoice",
    "FailoverSection",
    "Fault",
    "FrrSection",
    "GatewayMode",
    "GatewayRelay",
    "GatewaySection",
    "IgmpSection",
    "LogFormat",
    "LogLevel",
    "LogSection",
    "MldSection",
    "Oversize",
    "PimSection",
    "PolicyAction",
    "PolicyRule",
    "PolicySection",
    "QuerierSection",
    "RelaySection",
    "Role",
    "StaticJoin",
    "listen_address",
    "load",
    "parse",
    "read",
    "render",
    "show_defaults",
]
