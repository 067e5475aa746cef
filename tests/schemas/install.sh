#!/usr/bin/env bash
# Installs the schemas of Kubernetes and CycloneDX that tests/schemas/validate.mjs holds files against:
#   tests/schemas/install.sh
# From npm, in the versions of package-lock.json, into build/schemas (never beside the sources).
# Node.js comes with tests/clients/install.sh. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=../../build/schemas
stamp=$CACHE/node_modules/.nearkey-lock

say() { echo "schemas/install: $*"; }

cmp -s package-lock.json "$stamp" && exit
command -v npm >/dev/null || { say "no npm; no file is held against a schema"; exit; }
say "npm ci into build/schemas"
mkdir -p "$CACHE"
cp package.json package-lock.json "$CACHE/"
# npm ci takes the very versions of the lock file, and checks them by their hashes.
(cd "$CACHE" && npm ci --ignore-scripts --legacy-peer-deps --no-audit --no-fund) >"$CACHE/npm.log" 2>&1 ||
  { tail -n 20 "$CACHE/npm.log" >&2; say "npm ci failed" >&2; exit 1; }
cp package-lock.json "$stamp"
