#!/usr/bin/env bash
# Installs Debian packages: install-debian.sh PACKAGE...
# As root it installs them, without a question and without starting a service. Anybody else is told what to install.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
  echo "These are missing (names of Debian packages), install them and try again: $*" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "Debian packages are missing. As root, run this and try again:" >&2
  echo "  apt-get install --no-install-recommends $*" >&2
  exit 1
fi

# A package that brings a service starts it; exit code 101 of policy-rc.d says no. Whoever has such a file, keeps it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

echo "installing Debian packages: $*" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >&2 || echo "the package lists could not be renewed; going on with those that are here" >&2
apt-get install -y -qq --no-install-recommends "$@" >&2
