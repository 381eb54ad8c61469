#!/usr/bin/env bash
# CIFAR-10 with wrong labels on one GPU: the rows of the paper's Table 6, and labels by people (CIFAR-10N, worst).
#   benchmarks/noisy_labels/cifar10.sh DIRECTORY LABELS [OUT]
# DIRECTORY holds cifar-10-batches-py/ or cifar-10-python.tar.gz, LABELS is CIFAR-10N's CIFAR-10_human.pt.
# Most telling parts first; every two minutes a report of what is finished, and all of that but the networks in one
# file, OUT.tgz. Stopped, it goes on when called again, with that file unpacked to OUT as well. EPOCHS, NETWORK,
# PROCESSES (runs side by side on the GPU), EVERY (seconds between reports) and PYTHON may be set.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# //p' "$0"; exit 2; }
directory=$(realpath "$1") labels=$(realpath "$2") out=${3:-runs/cifar10}
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
common=(--data cifar10 --directory "$directory" --network "${NETWORK:-resnet20}"
  --epochs "${EPOCHS:-60}" --measure-every 3 --schedule step --weight-decay 1e-4 --device cuda --amp
  --processes "${PROCESSES:-4}" --seeds 2)
grid=(--lr search --grid 0.003 0.01 0.03 0.1 --search-seeds 1) # chosen on the 5,000 clean images held out from training

report() {
  "$python" -m benchmarks.noisy_labels report "$out" --to "$out/report" --archive "$out/report"
  tar -czf "$out.tgz.new" --exclude=checkpoint.pt --exclude='*.new' -C "$out" . || [ $? = 1 ] # 1: a run wrote meanwhile
  mv "$out.tgz.new" "$out.tgz"
}

part() { # part NOISE LOSS...
  local noise=$1 file=()
  shift
  [[ $noise != file* ]] || file=(--labels "$labels")
  "$python" -m benchmarks.noisy_labels sweep "${common[@]}" "${grid[@]}" "${file[@]}" --noises "$noise" \
    --losses "$@" --out "$out"
}

mkdir -p "$out"
set -m # a group of its own, so that a report under way is stopped, too
(while sleep "${EVERY:-120}" && kill -0 $$; do report || true; done) & # it fails where nothing is finished yet
reporter=$!
set +m
trap 'kill -- -$reporter' EXIT
part symmetric:0.4 cce imae
part file:worse_label cce imae
part symmetric:0.4 cce imae mae gce nce+mae
for noise in symmetric:0.8 asymmetric:0.4 none file:worse_label; do part "$noise" cce imae mae gce nce+mae; done
common+=(--reduction normalized) # the derivative normalisation of the authors' code
for noise in symmetric:0.4 symmetric:0.8 asymmetric:0.4 none file:worse_label; do part "$noise" imae; done
kill -- -$reporter
trap - EXIT
report
