#!/usr/bin/env bash
# Installs what drives Chromium in tests/system/test_status_page.py:
#   tests/browser/install.sh
# From npm puppeteer-core and axe-core, in the versions of package-lock.json, into build/browser
# (never beside the sources). Chromium itself is Debian's package (scripts/install-deps --test),
# Node.js comes with tests/clients/install.sh. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=../../build/browser
stamp=$CACHE/node_modules/.nearkey-lock

say() { echo "browser/install: $*"; }

cmp -s package-lock.json "$stamp" && exit
command -v npm >/dev/null || { say "no npm; the status page is not tested in a browser"; exit; }
say "npm ci into build/browser"
mkdir -p "$CACHE"
cp package.json package-lock.json "$CACHE/"
# npm ci takes the very versions of the lock file, and checks them by their hashes.
(cd "$CACHE" && npm ci --ignore-scripts --no-audit --no-fund) >"$CACHE/npm.log" 2>&1 ||
  { tail -n 20 "$CACHE/npm.log" >&2; say "npm ci failed" >&2; exit 1; }
cp package-lock.json "$stamp"
