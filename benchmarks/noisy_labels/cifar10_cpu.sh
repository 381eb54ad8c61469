#!/usr/bin/env bash
# CIFAR-10 with wrong labels on a CPU: 10,000 training images, `small`, 60 epochs, some ten minutes of one core a run.
# The images are neither cropped nor flipped: so varied, they let cross entropy memorise 7% of the wrong labels only,
# and the losses could not be told apart.
#   benchmarks/noisy_labels/cifar10_cpu.sh DIRECTORY LABELS [OUT]
# DIRECTORY holds cifar-10-batches-py/ or cifar-10-python.tar.gz, LABELS is CIFAR-10N's file of labels by people.
# Most telling parts first; stopped, it goes on when called again. EPOCHS, PROCESSES and PYTHON may be set.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# //p' "$0"; exit 2; }
directory=$(realpath "$1") labels=$(realpath "$2") out=${3:-runs/cifar10-cpu}
cd "$(dirname "$0")/../.."
common=(--data cifar10 --directory "$directory" --limit 10000 --network small --augmentation none --amp
  --epochs "${EPOCHS:-60}" --measure-every 5 --schedule step --weight-decay 1e-4 --processes "${PROCESSES:-2}")

part() { # part NOISE SEEDS LOSS...
  local noise=$1 seeds=$2 file=()
  shift 2
  if [[ $noise == file:* ]]; then file=(--labels "$labels"); fi
  "${PYTHON:-python3}" -m benchmarks.noisy_labels sweep "${common[@]}" --noises "$noise" "${file[@]}" --seeds "$seeds" \
    --losses "$@" --lr "${rates[@]}" --out "$out"
}

# Rates by the rule, on the 5,000 clean images held out, by runs of a quarter of the length on symmetric noise.
rates=(search --grid 0.003 0.01 0.03 0.1 --search-seeds 1 --search-epochs "${SEARCH_EPOCHS:-15}")
part symmetric:0.4 1 cce imae gce mae
part symmetric:0.4 2 cce imae gce mae
rates=(cce=0.1 imae=0.03 gce=0.1 mae=0.03) # what that chose
part file:worse_label 2 cce imae gce mae
