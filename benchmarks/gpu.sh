#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under ten minutes: builds for the card, looks whether every tier's
# kernel runs and is right, times every tier against the copy bandwidth of the same run, runs the GPU tests, holds small
# calls, CUDA graphs, losses of each row and a training step against F.cross_entropy, and runs the four checkers of
# compute-sanitizer on small calls.
#   benchmarks/gpu.sh [--dry-run] [FOLDER]     results go to FOLDER, benchmarks/speed/results by default:
#                                              gpu.log, gpu_times.json, and cuda.json for README's section
# --dry-run prints the steps, the seconds that each may take, and what it needs that is missing. PYTHON chooses the
# interpreter, ARCHS what to build for (default: the cards that are here), LIMIT the seconds in all: a step that may take
# more than is left is left out. Without git's data, IMAE_COMMIT and IMAE_DIRTY (0 or 1) tell what is measured.
# The whole matrix takes longer: python -m benchmarks.speed --device cuda --resume, as often as it takes.
set -uo pipefail
cd "$(dirname "$0")/.."
dry=0
[ "${1:-}" = --dry-run ] && { dry=1; shift; }
out=${1:-benchmarks/speed/results}
log=$out/gpu.log
python=${PYTHON:-python3}
limit=${LIMIT:-540}
failed=0
total=0
summary=""

say() {
  summary+="== $*"$'\n'
  echo "== $*" | tee -a "$log"
}

step() { # step NAME SECONDS NEEDS COMMAND...: NEEDS are commands and files, separated by commas; FATAL=0: it may fail
  local name=$1 seconds=$2 needs=$3 missing="" need code
  shift 3
  total=$((total + seconds))
  for need in ${needs//,/ }; do
    command -v "$need" >/dev/null 2>&1 || [ -e "$need" ] || missing+=" $need"
  done
  if [ "$dry" = 1 ]; then
    printf '%-10s %3d s  %s\n           %s\n' "$name" "$seconds" "${missing:+missing:$missing}" "$*"
    return
  fi
  local begin=$SECONDS left=$((limit - SECONDS))
  if [ -n "$missing" ] || [ "$left" -lt "$seconds" ]; then
    [ "${FATAL:-1}" = 0 ] || failed=1
    [ -n "$missing" ] && missing="missing:$missing"
    say "$name: left out, ${missing:-$left s left, it may take $seconds}"
    return
  fi
  echo "== $name: $*" >>"$log"
  timeout -k 5 "$seconds" "$@" >>"$log" 2>&1
  code=$?
  if [ "$code" = 0 ]; then
    say "$name: ok, $((SECONDS - begin)) s"
  else
    tail -n 15 "$log"
    [ "${FATAL:-1}" = 0 ] || failed=1
    say "$name: FAILED ($code), $((SECONDS - begin)) s"
  fi
}

cuda=${CUDA_HOME:-/usr/local/cuda}
archs=${ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -x '[0-9.]*' | sort -u | paste -sd ';')}
export TORCH_CUDA_ARCH_LIST=${archs:-9.0} # whatever it is set to for other packages
export IMAE_EXT_REQUIRE=1 MAX_JOBS=${MAX_JOBS:-8} PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # the package is built in place
export PATH=$PATH:$cuda/bin:$cuda/compute-sanitizer
[ "$dry" = 1 ] || { mkdir -p "$out" && : >"$log"; }

step build 125 "nvcc,$python,setup.py" env IMAE_CUDA=1 "$python" setup.py build_ext --inplace
step smoke 50 "nvidia-smi,benchmarks/gpu_shapes.py" "$python" -m benchmarks.gpu_shapes --check
step times 50 "nvidia-smi,benchmarks/gpu_times.py" "$python" -m benchmarks.gpu_times "$out/gpu_times.json"
# -vv: each test's name (pyproject.toml has a -q); in processes: what breaks one's device leaves the others theirs
step tests 100 "nvidia-smi,tests/test_cuda.py" \
  "$python" -m pytest -vv -n 4 --maxfail=20 -o faulthandler_timeout=60 tests/test_cuda.py
step speed 75 "nvidia-smi,benchmarks/speed/__main__.py" "$python" -m benchmarks.speed --device cuda --quick \
  --shapes 8x10 128x10 8192x10 8192x100 8192x1000 8192x1001 --output "$out/cuda.json"

# check NAME SECONDS TOOL [OPTION|TIER]...: of the API no errors, for torch and the runtime ask what may fail
check() {
  local name=$1 seconds=$2 tool=$3 options=() uncached=()
  shift 3
  [ "$tool" = initcheck ] || options=(--kernel-name kns=imae) # initcheck has to see who else writes memory
  case $tool in memcheck | initcheck) uncached=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1) ;; esac # where a tensor ends
  step "$name" "$seconds" "compute-sanitizer,benchmarks/gpu_shapes.py" ${uncached[@]+"${uncached[@]}"} \
    compute-sanitizer --tool "$tool" ${options[@]+"${options[@]}"} --report-api-errors no --error-exitcode 1 \
    --target-processes all "$python" -m benchmarks.gpu_shapes "$@"
}
check memcheck 40 memcheck
check racecheck 40 racecheck tile row2 row8 row32 row128 row256 strided
check initcheck 25 initcheck
check synccheck 20 synccheck
FATAL=0 check clusters 15 racecheck cluster # it may not know of memory shared between blocks

if [ "$dry" = 1 ]; then
  printf '%-10s %3d s\n' total "$total"
  [ "$total" -le 540 ]
  exit
fi
[ ! -e "$out/gpu_times.json" ] || timeout 20 "$python" -m benchmarks.gpu_times --show "$out/gpu_times.json"
printf %s "$summary"
exit $failed
