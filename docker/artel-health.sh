#!/usr/bin/env bash
# Exit code 0 if what runs in this container can be talked to: libp2p's daemon lives, and with
# ARTEL_HEALTH_URL (the coordinator's http://127.0.0.1:8080/api/status) the live page answers.
set -euo pipefail

daemon_lives() {
    local name
    for file in /proc/[0-9]*/comm; do
        # a process may end while we look
        name=$(cat "$file" 2> /dev/null) || continue
        [[ $name == p2pd ]] && return 0
    done
    echo "libp2p's daemon is not running" >&2
    return 1
}

daemon_lives
if [[ -n ${ARTEL_HEALTH_URL:-} ]]; then
    python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).read()' "$ARTEL_HEALTH_URL"
fi
