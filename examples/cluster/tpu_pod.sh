#!/bin/bash
# Trains on all hosts of a TPU pod slice, one process per host. Arguments go to `jmer train`:
#
#     NAME=jmer ZONE=us-central1-a examples/cluster/tpu_pod.sh --config lfvd_meld --corpus /mnt/shared/meld --workdir /mnt/shared/lfvd_meld
#
# The slice is there already, with jmer installed on every host and a folder that all hosts share (Filestore):
#
#     gcloud compute tpus tpu-vm create $NAME --zone $ZONE --accelerator-type v5litepod-16 --version v2-alpha-tpuv5-lite
#     gcloud compute tpus tpu-vm ssh $NAME --zone $ZONE --worker all --command "pip install 'jmer[tpu]'"
#
# The same command resumes.
set -eu

# The shells at the other end take the arguments apart again.
exec gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker all --command "jmer train --coordinator auto ${*@Q}"
