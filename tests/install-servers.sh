#!/usr/bin/env bash
# Sees to it that what the tests drive is on this machine: Debian's redis-server and rabbitmq-server, Node with the two
# Redis clients of e2e/package.json, and Chromium for the dashboard. (The Valkey 9 of the matrix comes with the Python
# environment.) Costs nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
# The PATH of those who are not root lacks /usr/sbin.
PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v rabbitmq-server >/dev/null || missing+=(rabbitmq-server)
if [ ${#missing[@]} -gt 0 ]; then
  ./install-debian.sh "${missing[@]}"
fi

# The tests start a broker of their own, on 127.0.0.1. That of the package listens on every address: it was not started,
# and as nobody but the tests has asked for it, the next boot shall not start it either.
if [[ " ${missing[*]-} " == *" rabbitmq-server "* ]]; then
  update-rc.d rabbitmq-server disable >&2 || echo "rabbitmq-server may start at the next boot" >&2
fi

# Not every distribution has a Chromium that can be installed like this: without one the tests of the dashboard are
# skipped, and say so. The fonts are for what it draws.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  ./install-debian.sh chromium fonts-dejavu-core || echo "going on without Chromium: the dashboard is not tested" >&2
fi

# npm writes the hidden lock file last: it is newer than ours exactly when an installation of ours was finished.
if [ ! e2e/node_modules/.package-lock.json -nt e2e/package-lock.json ]; then
  echo "installing ioredis and node-redis from npm" >&2
  npm ci --prefix e2e --no-audit --no-fund --no-update-notifier --loglevel=error >&2
fi
