#!/bin/bash
# Download, convert and train at the same time: training starts on the first part while the rest arrives. With
# train_loader.expected_samples=auto it goes on until it has had all of it, requeued with a pause where it has to wait.
#   slurm/pipeline.sh MINUTES YAML [key=value ...]
# MINUTES: how long to download before the first conversion. Options for each job, as sbatch takes them:
#   DOWNLOAD_OPTIONS CONVERT_OPTIONS TRAIN_OPTIONS, for example TRAIN_OPTIONS="--nodes=2 --ntasks-per-node=8 --gpus-per-node=8"
set -euo pipefail
[ $# -ge 2 ] || { echo "error: usage: slurm/pipeline.sh MINUTES YAML [key=value ...]" >&2; exit 2; }
case $1 in '' | *[!0-9]*) echo "error: $1: expected minutes, then a YAML" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
mkdir -p logs
minutes=$1; shift
submit() { sbatch --parsable "$@"; }
# shellcheck disable=SC2086 # options are words
download=$(submit ${DOWNLOAD_OPTIONS:-} slurm/download_openimages.sbatch "$@")
begun="after:$download"
[ "$minutes" -eq 0 ] || begun+="+$minutes"   # SLURM refuses +0
# shellcheck disable=SC2086
first=$(submit ${CONVERT_OPTIONS:-} --dependency="$begun" slurm/convert.sbatch "$@")
# From then on every ten minutes (CONVERT_EVERY, in seconds) what has arrived, until the download has finished.
rest=$(submit ${CONVERT_OPTIONS:-} --dependency="afterok:$first" slurm/convert.sbatch "$@" --watch "${CONVERT_EVERY:-600}")
train=$(submit ${TRAIN_OPTIONS:-} --dependency="afterok:$first" slurm/train.sbatch "$@")
echo "download $download, first conversion $first, later conversions $rest, training $train"
