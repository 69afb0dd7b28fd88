"""The configuration file: TOML in, frozen models out, every fault told with its line."""

from agent.service.config.checks import listen_address
from agent.service.config.errors import ConfigurationError, Fault
from agent.service.config.loader import load, parse, read
from agent.service.config.render import render, show_defaults
from agent.service.config.sections import (
    ApiSection,
    Configuration,
    DataplaneSection,
    EngineChoice,
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
    "EngineChoice",
    "Fault",
    "GatewayRelay",
    "GatewaySection",
    "IgmpSection",
    "LogFormat",
    "LogLevel",
    "LogSection",
    "MldSection",
    "Oversize",
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
