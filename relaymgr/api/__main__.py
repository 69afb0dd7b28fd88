"""Prints the contract of the API: `python -m relaymgr.api > openapi/relaymgr.yaml`."""

from __future__ import annotations

import sys

from relaymgr.api.contract import contract_text

if __name__ == "__main__":
    sys.stdout.write(contract_text())
