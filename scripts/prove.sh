#!/usr/bin/env bash
# Lets several instances decide under load, and checks every decision against the law and a model.
#
#   scripts/prove.sh [--ops N | --minutes M] [--instances N] [--tasks N] [--keys N] [--seed N] [--only ALGORITHM-STRATEGY] [--write]
#
# Runs every algorithm on every strategy, N requests each (default 10000) or M minutes in all, on a Redis of its own, then plants faults that the
# checks must catch. --write keeps the tables in docs/exactness.md. 1,000,000 requests each, and of
# leases twenty times as many, take ten minutes and more.
set -euo pipefail
cd "$(dirname "$0")/.."

write=no
arguments=()
for argument in "$@"; do
  case $argument in
    --write) write=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done
command -v redis-server >/dev/null || { echo "redis-server is missing: ./scripts/test.sh installs it" >&2; exit 69; }

page=docs/exactness.md
begin='<!-- scripts/prove.sh --write writes what follows -->'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
format=()
[ $write = no ] || format=(--markdown)

cargo build --release --locked --quiet --example tollgate_check
target/release/examples/tollgate_check "${arguments[@]+"${arguments[@]}"}" "${format[@]+"${format[@]}"}" | tee "$work/pairs"
echo
echo "Planted faults:"
# A folder of their own, so that no build with faults stands where one without is looked for.
cargo build --release --locked --quiet --features planted-faults --example tollgate_check --target-dir target/planted
target/planted/release/examples/tollgate_check --faults "${format[@]+"${format[@]}"}" | tee "$work/faults"

if [ $write = yes ]; then
  sed "\\|^$begin|q" "$page" >"$work/page"
  {
    echo
    echo "$(date -u +%Y-%m-%d), $(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/Redis \1/p'), $(uname -s) $(uname -m), $(getconf _NPROCESSORS_ONLN) cores; \`scripts/prove.sh $*\`:"
    echo
    cat "$work/pairs"
    echo
    echo "Planted faults, 10,000 requests each:"
    echo
    cat "$work/faults"
  } >>"$work/page"
  cp "$work/page" "$page"
fi
