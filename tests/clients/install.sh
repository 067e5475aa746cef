#!/usr/bin/env bash
# Installs the clients that tests/clients/run.py runs:
#   tests/clients/install.sh
# Debian's packages of interpreters and clients, and from npm node-redis, ioredis, iovalkey and
# Valkey GLIDE, in the versions of package-lock.json, into build/clients (never beside the sources).
# Only what is missing is installed; a second run does nothing. As a user it goes through sudo.
# A client that this release does not have is left out with a word, and run.py skips it.
set -euo pipefail
cd "$(dirname "$0")"

PACKAGES=(gcc libc6-dev pkg-config python3-redis valkey-tools
  php-cli php-redis php-predis ruby ruby-redis libredis-perl libredis-fast-perl
  lua5.1 lua-redis lua-socket
  golang-go golang-github-gomodule-redigo-dev golang-github-stretchr-testify-dev)
CACHE=../../build/clients

say() { echo "clients/install: $*"; }
die() { say "$*" >&2; exit 1; }

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}
candidate_of() {
  LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "neither root nor sudo; run as root: $*"
  fi
}

install_packages() {
  local package missing=() available=()
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "apt-get update"
  as_root apt-get -qq update || say "apt-get update failed; going on with the lists there are"
  for package in "${missing[@]}"; do
    if [ -n "$(candidate_of "$package")" ]; then available+=("$package")
    else say "no package $package in this release; the clients that need it are skipped"
    fi
  done
  [ ${#available[@]} -gt 0 ] || return 0
  say "installing ${available[*]}"
  # RUNLEVEL=1: a package's start script sees a machine that starts no services now.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${available[@]}" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "apt-get install ${available[*]} failed"; }
}

# npm ci takes the very versions of the lock file, and checks them by their hashes.
install_node_modules() {
  local stamp=$CACHE/node_modules/.nearkey-lock
  cmp -s package-lock.json "$stamp" && return
  say "npm ci into build/clients"
  mkdir -p "$CACHE"
  cp package.json package-lock.json "$CACHE/"
  if (cd "$CACHE" && npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1; then
    cp package-lock.json "$stamp"
  else
    tail -n 20 "$log" >&2
    die "npm ci failed"
  fi
}

main() {
  command -v apt-get >/dev/null || die "needs apt-get (Debian or Ubuntu)"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  command -v valkey-cli >/dev/null && PACKAGES=("${PACKAGES[@]/valkey-tools/}")
  # A Node.js from elsewhere comes with an npm of its own.
  command -v npm >/dev/null || PACKAGES+=(nodejs npm)
  local wanted
  mapfile -t wanted < <(printf '%s\n' "${PACKAGES[@]}" | grep .)
  install_packages "${wanted[@]}"
  if command -v npm >/dev/null; then install_node_modules
  else say "no npm; the clients for Node.js are skipped"
  fi
}

main "$@"
