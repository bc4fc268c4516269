#!/usr/bin/env bash
# Two processes on one machine, e.g. one for each half of its devices, or to try the distributed path on a CPU:
#     docs/launch/one_machine.sh train ppo --out runs/two --devices 4
# --devices is the number of both together. On a CPU each gets half of them as virtual devices.
set -euo pipefail
port=${PORT:-29500}
processes=${PROCESSES:-2}
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < processes; i++)); do
  jaxdl "$@" --distributed --coordinator "localhost:$port" --num-processes "$processes" --process-id "$i" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
