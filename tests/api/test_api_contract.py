"""openapi/agent.yaml is what the program serves, and it explains everything."""

from pathlib import Path

import pytest
import yaml

from agent.service.api.contract import contract, contract_text

COMMITTED = Path(__file__).parents[2] / "openapi" / "agent.yaml"
PATHS = {
    "/v1/status": {"get"},
    "/v1/tunnels": {"get"},
    "/v1/channels": {"get"},
    "/v1/interfaces": {"get"},
    "/v1/neighbors": {"get"},
    "/v1/statistics": {"get"},
    "/v1/joins": {"get", "post", "delete"},
    "/v1/drain": {"put"},
    "/v1/config": {"get"},
    "/v1/config/candidate": {"post"},
    "/v1/config/commit": {"post"},
    "/v1/config/confirm": {"post"},
    "/v1/config/rollback": {"post"},
    "/metrics": {"get"},
    "/healthz": {"get"},
}


def test_the_committed_contract_is_the_served_one():
    assert COMMITTED.read_text() == contract_text(), "run: python -m agent.service.api > openapi/agent.yaml"


def test_the_committed_contract_reads_as_yaml_like_the_document():
    assert yaml.safe_load(COMMITTED.read_text()) == contract()


def test_every_endpoint_of_the_contract_is_there():
    assert {path: set(item) for path, item in contract()["paths"].items()} == PATHS


def test_every_operation_has_a_name_a_summary_and_its_errors():
    for path, item in contract()["paths"].items():
        for operation in item.values():
            assert operation["operationId"].islower(), path
            assert operation["summary"], path
            if path != "/healthz":
                assert {"401", "422"} <= set(operation["responses"]), path
                assert operation["security"] == [{"HTTPBearer": []}], path


def test_every_field_and_parameter_is_described():
    document = contract()
    schemas = document["components"]["schemas"]

    def description(schema):  # a field that only repeats the description of its type is written as a bare reference
        return schema.get("description") or schemas[schema["$ref"].rpartition("/")[2]].get("description")

    undescribed = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, described in schema.get("properties", {}).items()
        if not description(described)
    ]
    undescribed += [
        f"{path} {parameter['name']}"
        for path, item in document["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", [])
        if not (parameter.get("description") or parameter["schema"].get("description"))
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", ["AgentStatus", "TunnelStatus", "ChannelStatus", "StatisticsReport"])
def test_durations_and_sizes_say_their_unit(name):
    for field, schema in contract()["components"]["schemas"][name]["properties"].items():
        kinds = {schema.get("type"), *(option.get("type") for option in schema.get("anyOf", []))}
        if "number" in kinds:
            assert "econds" in schema["description"] or "rocessor time" in schema["description"], field
