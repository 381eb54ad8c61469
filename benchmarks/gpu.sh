#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under ten minutes: builds for the card, runs the GPU tests, runs the
# four checkers of compute-sanitizer on small shapes, times every tier against the copy bandwidth of the same run, and
# holds small calls, CUDA graphs, losses of each row and a training step against F.cross_entropy.
#   benchmarks/gpu.sh [--dry-run] [FOLDER]     results go to FOLDER, benchmarks/results by default
# --dry-run prints the steps, the seconds that each may take, and what it needs that is missing. PYTHON chooses the
# interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
dry=0
[ "${1:-}" = --dry-run ] && { dry=1; shift; }
out=${1:-benchmarks/results}
python=${PYTHON:-python3}
failed=0
total=0

step() { # step NAME SECONDS NEEDS COMMAND...: NEEDS are commands and files, separated by commas
  local name=$1 seconds=$2 needs=$3 missing="" need
  shift 3
  total=$((total + seconds))
  for need in ${needs//,/ }; do
    command -v "$need" >/dev/null 2>&1 || [ -e "$need" ] || missing+=" $need"
  done
  if [ "$dry" = 1 ]; then
    printf '%-10s %3d s  %s\n           %s\n' "$name" "$seconds" "${missing:+missing:$missing}" "$*"
    return
  fi
  if [ -n "$missing" ]; then
    echo "== $name: left out, missing:$missing"
    failed=1
    return
  fi
  local begin=$SECONDS
  if timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
    echo "== $name: ok, $((SECONDS - begin)) s"
  else
    echo "== $name: FAILED ($?), $((SECONDS - begin)) s"
    tail -n 15 "$out/$name.log"
    failed=1
  fi
}

[ "$dry" = 1 ] || mkdir -p "$out"
export IMAE_EXT_REQUIRE=1 MAX_JOBS=${MAX_JOBS:-8}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # the package is built in place, and scripts look beside themselves only
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
step build 130 "nvcc,$python,setup.py" env IMAE_CUDA=1 "$python" setup.py build_ext --inplace
step tests 140 "nvidia-smi,tests/test_cuda.py" "$python" -m pytest -q --maxfail=20 tests/test_cuda.py
for tool in memcheck racecheck initcheck synccheck; do
  uncached=() # for memcheck, so that it sees where each tensor ends
  [ "$tool" = memcheck ] && uncached=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1)
  # of the API, torch and the runtime ask what may fail, and an error of ours is an exception
  step "$tool" 45 "compute-sanitizer,benchmarks/gpu_shapes.py" ${uncached[@]+"${uncached[@]}"} \
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 1 "$python" -m benchmarks.gpu_shapes
done
step times 60 "nvidia-smi,benchmarks/gpu_times.py" "$python" -m benchmarks.gpu_times "$out/gpu.json"
step speed 90 "nvidia-smi,benchmarks/speed/__main__.py" "$python" -m benchmarks.speed --device cuda --quick \
  --shapes 8x10 128x10 8192x10 8192x100 8192x1000 8192x1001 --output "$out/speed.json"
[ "$dry" = 0 ] || { printf '%-10s %3d s\n' total "$total"; [ "$total" -le 600 ] || failed=1; }
[ "$dry" = 1 ] || { [ -e "$out/gpu.json" ] && "$python" -m benchmarks.gpu_times --show "$out/gpu.json"; }
exit $failed
