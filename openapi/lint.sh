#!/usr/bin/env bash
# lint.sh: redocly's linter over the manager's API description, with the rules of openapi/redocly.yaml. npm fetches it once.
# Version 1: the later ones need a newer node than Debian 12 has.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v npm > /dev/null || { echo "the API's description is not linted: npm is missing" >&2; exit 0; }
linter=.cache/redocly
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
[ -x $linter/node_modules/.bin/redocly ] ||
    npm install --prefix $linter --no-save --no-audit --no-fund --loglevel=error '@redocly/cli@1.34.20' ||
    { echo "the API's description is not linted: npm cannot install redocly" >&2; exit 0; }
$linter/node_modules/.bin/redocly lint --config openapi/redocly.yaml openapi/relaymgr.yaml
