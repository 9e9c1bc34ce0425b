#!/usr/bin/env bash
# Runs the integration tests against other servers than the one on the PATH.
#
#   scripts/test-servers.sh SERVER ...
#
# Each SERVER is the file of a redis-server or valkey-server. One line a server says how it went; the output of one that
# failed comes before its line. Exits with 1 if any failed.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:---help} in
  -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo test --locked --quiet --test it --no-run
status=0
for server in "$@"; do
  server=$(realpath "$server")
  printf '#!/bin/sh\nexec %q "$@"\n' "$server" >"$work/redis-server"
  chmod +x "$work/redis-server"
  version=$("$server" --version | sed -n 's/^\([A-Za-z]*\).* v=\([0-9.]*\).*/\1 \2/p')
  if ! PATH=$work:$PATH cargo test --locked --quiet --test it >"$work/output" 2>&1; then
    cat "$work/output"
    status=1
  fi
  echo "${version:-$server}: $(sed -n 's/^test result: //p' "$work/output")"
done
exit $status
