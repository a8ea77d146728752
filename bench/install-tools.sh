#!/usr/bin/env bash
# Sees to it that what the benchmarks compare with is there: Redis with redis-benchmark, twemproxy,
# HAProxy, RabbitMQ.
# Root on a Debian gets what is missing installed, anybody else is told what to install.
set -euo pipefail

# Debian keeps daemons in sbin, which the PATH of a user often lacks.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

packages=()
need() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null || packages+=("$2")
}
need redis-server redis-server
need redis-benchmark redis-tools
need nutcracker nutcracker
need haproxy haproxy
need rabbitmq-server rabbitmq-server

if [ "${#packages[@]}" -gt 0 ]; then
  exec "$(dirname "$0")/../tests/install-debian.sh" "${packages[@]}"
fi
