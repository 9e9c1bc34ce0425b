#!/usr/bin/env bash
# Breaks what Tollgate stands on, under load, and judges what its clients see of it.
#
#   scripts/chaos.sh [--only NAME] [--seconds N] [--rate N] [--seed N] [--short] [--json FILE] [--write]
#
# Runs each experiment for N seconds (default 20) at N requests a second (default 500), on three instances of the release
# build and a Redis of their own, behind a proxy. --only (which may be given more than once) runs one experiment after the
# quiet baseline. --short runs a few, on the debug build, a few seconds each, and judges counts but no times: for a machine
# that stalls. --json keeps everything that was measured. --write keeps the table in docs/resilience.md.
#
# Exits with 1 when a promise is broken. All traffic stays on this machine; the experiment black-hole makes a network
# namespace, so it needs root and is skipped elsewhere. All experiments take about a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

write=no profile=release
arguments=()
for argument in "$@"; do
  case $argument in
    --write) write=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
    --short) profile=dev; arguments+=("$argument") ;;
    *) arguments+=("$argument") ;;
  esac
done
command -v redis-server >/dev/null || { echo "redis-server is missing: ./scripts/test.sh installs it" >&2; exit 69; }
# A thousand sockets that dribble, and their other ends.
ulimit -n 8192 2>/dev/null || true

page=docs/resilience.md
begin='<!-- scripts/chaos.sh --write writes what follows -->'
work=$(mktemp -d)
namespace=tollgate-chaos-$$
clean() {
  rm -rf "$work"
  # Only where the program could not do it itself.
  if command -v ip >/dev/null && [ -e "/run/netns/$namespace" ]; then ip netns del "$namespace"; fi
}
trap clean EXIT
format=()
[ $write = no ] || format=(--markdown)

target=${CARGO_TARGET_DIR:-target}
[ $profile = release ] && folder=$target/release || folder=$target/debug
cargo build --profile $profile --locked --quiet --bin tollgate --example tollgate_chaos
kept=yes
"$folder/examples/tollgate_chaos" --binary "$folder/tollgate" --namespace "$namespace" \
  "${arguments[@]+"${arguments[@]}"}" "${format[@]+"${format[@]}"}" >"$work/table" || kept=no
cat "$work/table"

if [ $write = yes ] && [ -s "$work/table" ]; then
  sed "\\|^$begin|q" "$page" >"$work/page"
  {
    echo
    echo "$(date -u +%Y-%m-%d), $(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/Redis \1/p'), $(uname -s) $(uname -m), $(getconf _NPROCESSORS_ONLN) cores; \`scripts/chaos.sh $*\`:"
    echo
    # What stands below the table is a list.
    sed -e '/^| /b' -e '/^|/b' -e '/^$/b' -e 's/^/- /' "$work/table"
  } >>"$work/page"
  cp "$work/page" "$page"
fi
[ $kept = yes ]
