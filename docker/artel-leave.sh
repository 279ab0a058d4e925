#!/usr/bin/env bash
# Tells the peer that `artel-join` started to leave, and waits until it has: for a preStop hook or a script.
#
#     artel-leave SECONDS     somewhat more than the peer's --grace
#
# A second signal would end the peer at once, so SECONDS must be over before anybody else sends one.
set -euo pipefail

pid_file=${ARTEL_PID_FILE:-/tmp/artel-peer.pid}
seconds=${1:?give the seconds to wait, somewhat more than --grace}

# no file: nothing has been started
[[ -s $pid_file ]] || exit 0
pid=$(< "$pid_file")
# Slurm's signal, which the peer understands like SIGTERM
kill -USR1 "$pid" 2> /dev/null || exit 0
while (( SECONDS < seconds )) && kill -0 "$pid" 2> /dev/null; do
    sleep 0.5
done
