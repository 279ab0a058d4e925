#!/usr/bin/env bash
# Joins the run that a coordinator serves: waits for its `peer join` line, then becomes that command.
#
#     artel-join [OPTIONS OF `peer join`]
#     artel-join doctor [OPTIONS OF `peer doctor`]     looks at what the peer would find here, and joins nothing
#
# ARTEL_DASHBOARD   address of the coordinator's live page, which tells the line, e.g. http://coordinator:8080
# ARTEL_JOIN_FILE   or: a file with the line, as the coordinator keeps it in RUN_DIR/join.txt
# ARTEL_TICKET      where the run is by invitation: the token of `coordinator invite`, which the command itself reads
# ARTEL_JOIN_WAIT   seconds to wait for it (900)
# ARTEL_PID_FILE    where `artel-leave` finds the peer (/tmp/artel-peer.pid)
set -euo pipefail

wait_seconds=${ARTEL_JOIN_WAIT:-900}
pid_file=${ARTEL_PID_FILE:-/tmp/artel-peer.pid}

print_join_line() {
    if [[ -n ${ARTEL_JOIN_FILE:-} ]]; then
        [[ -s $ARTEL_JOIN_FILE ]] && head -n 1 "$ARTEL_JOIN_FILE"
    else
        python - "${ARTEL_DASHBOARD%/}/api/status" <<'PYTHON'
import json, sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        print(json.load(answer)["join_line"])
except (OSError, ValueError, KeyError):
    sys.exit(1)
PYTHON
    fi
}

if [[ -z ${ARTEL_JOIN_FILE:-}${ARTEL_DASHBOARD:-} ]]; then
    echo "error: set ARTEL_DASHBOARD or ARTEL_JOIN_FILE, or call \`peer join\` itself" >&2
    exit 2
fi

action="join"
if [[ ${1:-} == doctor ]]; then
    action="doctor"
    shift
else
    # `exec` below keeps the process id
    echo "$$" > "$pid_file"
fi
source=${ARTEL_JOIN_FILE:-${ARTEL_DASHBOARD:-}}
echo "waiting for the coordinator's join line from $source" >&2
until line=$(print_join_line) && [[ -n $line ]]; do
    if (( SECONDS >= wait_seconds )); then
        echo "error: no join line from $source within $wait_seconds s: is the coordinator up?" >&2
        exit 1
    fi
    sleep 1
done

read -r -a words <<< "$line"
if [[ ${words[0]:-} != peer || ${words[1]:-} != join ]]; then
    echo "error: $source does not hold a \`peer join\` line" >&2
    exit 1
fi
words[1]=$action
exec "${words[@]}" "$@"
