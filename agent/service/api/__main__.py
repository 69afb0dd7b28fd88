"""Prints the contract of the API: `python -m agent.service.api > openapi/agent.yaml`."""

from __future__ import annotations

import sys

from agent.service.api.contract import contract_text

if __name__ == "__main__":
    sys.stdout.write(contract_text())
