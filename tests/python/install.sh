#!/usr/bin/env bash
# Fetches redis-py with its own tests, Debian's source package of it, into build/redis-py:
#   tests/python/install.sh
# tests/python/test_redis_py_suite.py runs them with nearkey's clients, and is skipped without. apt
# gets its own sources, lists and cache, so that the machine's configuration stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/debian-mirror

# The newest first; a mirror may have a list of packages without all of their files.
SUITES=(sid trixie)
TARGET=build/redis-py

say() { echo "python/install: $*"; }

# fetch SUITE URI: the archive of the upstream's own source, which apt checks by its hash.
fetch() {
  local dir=$scratch/$1
  mkdir -p "$dir"/{etc,lists/partial,cache/archives/partial,out}
  write_source deb-src "$1" "$2" >"$dir/etc/redis-py.sources"
  local apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/etc"
    -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Acquire::Languages=none)
  [ "$(id -u)" != 0 ] || apt+=(-o APT::Sandbox::User=root)
  "${apt[@]}" update >"$scratch/log" 2>&1 || return 1
  # What is Debian's own in it may be missing.
  (cd "$dir/out" && "${apt[@]}" source --download-only python-redis) >>"$scratch/log" 2>&1 || true
  archive=$(find "$dir/out" -name 'python-redis_*.orig.tar.*' -print -quit)
  [ -n "$archive" ] && tar -tf "$archive" >"$scratch/list" &&
    grep -q '/tests/test_pipeline\.py$' "$scratch/list"
}

main() {
  [ ! -e "$TARGET/tests/test_pipeline.py" ] || return 0
  command -v apt-get >/dev/null || { say "no apt-get; redis-py's own tests are skipped"; return 0; }
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  local uri codename suite
  read -r uri codename < <(debian_mirror) || { say "no Debian mirror is known"; return 0; }
  for suite in "${SUITES[@]}"; do
    fetch "$suite" "$uri" || continue
    mkdir -p "$scratch/tree" "$TARGET"
    tar -xf "$archive" -C "$scratch/tree" --strip-components=1
    cp -r "$scratch/tree/." "$TARGET/"
    say "$(basename "$archive") of $suite into $TARGET"
    return 0
  done
  say "the mirror has no source of redis-py; its own tests are skipped"
}

main "$@"
