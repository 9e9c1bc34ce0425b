#!/usr/bin/env bash
# The one test command: finds or installs redis-server, then format, lints, docs, unit, doc and integration tests.
#
#   scripts/test.sh            everything
#   scripts/test.sh NAME ...   only the tests whose names contain NAME, without the other checks
#
# Needs a Rust toolchain. Redis is installed with the machine's own package manager, with sudo where needed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

have_redis() { command -v redis-server >/dev/null && command -v redis-cli >/dev/null; }

install_redis() {
  local command manager
  for manager in apt-get brew dnf apk none; do
    command -v "$manager" >/dev/null && break
  done
  case $manager in
    apt-get) command="apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server" ;;
    brew) command="brew install redis" ;;
    dnf) command="dnf install -y redis" ;;
    apk) command="apk add redis" ;;
    none) command="YOUR-PACKAGE-MANAGER install redis" ;;
  esac
  case $manager in
    brew) sh -c "$command" || true ;;
    none) ;;
    *) as_root sh -c "$command" >/dev/null || true ;;
  esac
  have_redis && return
  printf 'The tests need redis-server and redis-cli. Install them as root with:\n\n  %s\n\n' "$command" >&2
  exit 69
}

command -v cargo >/dev/null || { echo "The tests need a Rust toolchain: see rustup.rs" >&2; exit 69; }
have_redis || { say "installing redis-server"; install_redis; }
version=$(redis-server --version | sed -n 's/.* v=\([0-9]*\.[0-9]*\).*/\1/p')
say "redis-server $version"
[ "$(printf '6.2\n%s\n' "$version" | sort -V | head -n 1)" = 6.2 ] || { echo "The tests need Redis 6.2 or later." >&2; exit 69; }

if [ $# -gt 0 ]; then
  exec cargo test --locked --all-targets -- "$@"
fi

say "format"
cargo fmt --all -- --check
say "lints"
cargo clippy --locked --all-targets -- -D warnings
cargo clippy --locked --all-targets --features planted-faults -- -D warnings
cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
if command -v shellcheck >/dev/null; then
  say "shell scripts"
  grep -lZ '^#!.*bash' scripts/* .ci/run | xargs -0 shellcheck
fi
say "unit and integration tests"
[ "$(uname -s)" = Linux ] || echo "Left out on this system: tests that step the clock of a Redis (Linux only)."
cargo test --locked --all-targets
say "documentation examples"
cargo test --locked --doc
say "headers, read by another parser"
status=0
./scripts/headers-check.sh || status=$?
case $status in
  0) ;;
  69) echo "Left out: the headers were not read by another parser." ;;
  *) exit "$status" ;;
esac
say "histories of every algorithm on every strategy, and planted faults"
cargo run --locked --quiet --example tollgate_check
cargo run --locked --quiet --features planted-faults --example tollgate_check -- --faults --ops 5000
say "a Redis that is killed, frozen and cut off, under load"
./scripts/chaos.sh --short
say "all passed"
