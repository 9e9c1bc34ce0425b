#!/usr/bin/env bash
# Parses every answer's limit headers with a structured-field parser that is not ours (http_sf of PyPI), and its body as JSON.
#
#   scripts/headers-check.sh
#
# Needs Python 3 with venv, and the Python package index once; exits 69 without them. Starts one instance in memory, on
# a free port.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=1.5.0
venv=target/headers-check
python=$venv/bin/python
have_parser() { "$python" -c "import importlib.metadata as m; assert m.version('http_sf') == '$VERSION'" 2>/dev/null; }
install_parser() {
  python3 -m venv "$venv" && "$python" -m pip install --quiet --disable-pip-version-check "http_sf==$VERSION"
}
have_parser || install_parser || { echo "Needs Python 3 with venv and the package http_sf." >&2; exit 69; }
cargo build --locked --quiet

exec "$python" tests/headers_check.py "$(realpath "${CARGO_TARGET_DIR:-target}")/debug/tollgate"
