#!/usr/bin/env bash
# The same command on every host of a TPU slice; the slice announces its processes, and jaxdl joins them.
#     TPU=my-pod ZONE=us-central2-b RUN=/mnt/shared/runs/ppo docs/launch/tpu_pod.sh ppo --num-envs 4096 --total-steps 1000000000
# jaxdl[tpu] must be installed on the hosts (`--command 'pip install ...'` once), and RUN be a folder that all of them mount.
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?its zone}" "${RUN:?folder of the run, seen by all hosts}"
words=$(printf '%q ' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "
  if [ -d '$RUN/checkpoints' ]; then jaxdl resume '$RUN' --distributed; else jaxdl train $words --out '$RUN' --distributed; fi"
