#!/usr/bin/env bash
# Feeds the reader of rules files with broken texts until it panics, hangs or time is up.
#
#   scripts/fuzz.sh [SECONDS]      600 unless told
#
# Installs cargo-fuzz if it is absent. A stable toolchain will do. What it found stays in fuzz/artifacts/rules_file/; run
# it again with `RUSTC_BOOTSTRAP=1 cargo fuzz run rules_file FILE`.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-600} in
  *[!0-9]* | '') sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"; exit 64 ;;
  *) seconds=${1:-600} ;;
esac
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# Sanitizers are unstable options, which only this lets a stable compiler take.
export RUSTC_BOOTSTRAP=1
mkdir -p fuzz/corpus/rules_file
# What is kept is written to the first folder; the others are only read.
exec cargo fuzz run rules_file fuzz/corpus/rules_file tests/rules/good tests/rules/doubtful tests/rules/broken -- \
  -max_total_time="$seconds" -timeout=10 -max_len=16384 -dict=fuzz/rules_file.dict -print_final_stats=1
