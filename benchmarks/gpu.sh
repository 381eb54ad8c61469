#!/usr/bin/env bash
# Everything that needs a GPU, in stages, most telling first; each writes its results as it ends, and one that fails
# leaves the others running. No network, and no files but the checkout's.
#   benchmarks/gpu.sh [--dry-run] [STAGE...]     all five by default
#     1  180 s  a module with kernels for this card: the one in place, a wheel's, or a build for the card alone
#               (benchmarks/gpu_module.py); every tier's kernel against the reference; the GPU tests marked `short`
#     2  120 s  a copy's bandwidth against every tier, float32 and bfloat16: gpu_times.json
#     3  210 s  the peers side by side at eight shapes: cuda.json; the linear head: linear_head_cuda.json
#     4  120 s  compute-sanitizer's four tools on tiny shapes
#     5   80 s  CIFAR-10 with 40% wrong labels, four losses: gpu_cifar10.json
# So stages 1 to 3 fit into one call of 540 s, 4 and 5 into another of 200 s. A log named by the stages, such as
# gpu_123.log, tells of each step how it ended; `python -m benchmarks.gpu_readme` writes README's sections from it all.
#   OUT      folder of the results (benchmarks/speed/results)     LIMIT   seconds in all: what may take more than is
#   PYTHON   the interpreter (python3)                                    left is left out (540 with 1, 2 or 3, else 200)
#   MODULE   keep: the module in place, whatever its age;         ARCHS   what to build for (the cards that are here)
#            build: a new one                                     DATA    folder of CIFAR-10's official archive (data)
# Without git's data, IMAE_COMMIT and IMAE_DIRTY (0 or 1) tell what is measured. --dry-run prints the steps, the seconds
# that each may take, and what is missing. The whole matrix takes longer: python -m benchmarks.speed --device cuda
# --resume, as often as it takes; all GPU tests: python -m pytest -m cuda.
set -uo pipefail
cd "$(dirname "$0")/.."
dry=0 stages=()
for word; do
  case $word in
    --dry-run) dry=1 ;;
    [1-5]) stages+=("$word") ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
  esac
done
[ ${#stages[@]} -gt 0 ] || stages=(1 2 3 4 5)
out=${OUT:-benchmarks/speed/results} python=${PYTHON:-python3} data=${DATA:-data} failed=0 total=0 summary=""
case " ${stages[*]} " in *[123]*) limit=${LIMIT:-540} ;; *) limit=${LIMIT:-200} ;; esac
log=$out/gpu_$(printf %s "${stages[@]}").log runs=build/gpu_cifar10

say() {
  summary+="== $*"$'\n'
  echo "== $*" | tee -a "$log"
}

step() { # step NAME SECONDS NEEDS COMMAND...: NEEDS are commands and files, separated by commas; FATAL=0: it may fail
  local name=$1 seconds=$2 needs=$3 missing="" need code state
  shift 3
  total=$((total + seconds))
  for need in ${needs//,/ }; do
    command -v "$need" >/dev/null 2>&1 || [ -e "$need" ] || missing+=" $need"
  done
  if [ "$dry" = 1 ]; then
    printf '%s  %-10s %3d s  %s\n              %s\n' "$stage" "$name" "$seconds" "${missing:+missing:$missing}" "$*"
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
  code=$? state="ok"
  if [ "$code" != 0 ]; then
    tail -n 15 "$log"
    [ "${FATAL:-1}" = 0 ] || failed=1
    state="FAILED ($code)"
  fi
  say "$name: $state, $((SECONDS - begin)) s"
}

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

stage_1() {
  step module 95 "nvidia-smi,$python,setup.py" "$python" -m benchmarks.gpu_module
  step smoke 40 "nvidia-smi,benchmarks/gpu_shapes.py" "$python" -m benchmarks.gpu_shapes --check
  # -vv: each test's name (pyproject.toml has a -q); in processes: what breaks one's device leaves the others theirs
  step tests 45 "nvidia-smi,tests/test_cuda.py" "$python" -m pytest -vv -n 4 -m short --maxfail=20 \
    -o faulthandler_timeout=30 --junitxml "$out/gpu_tests.xml" tests/test_cuda.py tests/test_cuda_more.py
}
stage_2() { step times 120 "nvidia-smi,benchmarks/gpu_times.py" "$python" -m benchmarks.gpu_times "$out/gpu_times.json"; }
stage_3() {
  step peers 165 "nvidia-smi,benchmarks/speed/__main__.py" "$python" -m benchmarks.speed --device cuda --quick \
    --compile some --shapes 8192x1000 1024x32000 8192x100 8192x10 4096x50257 8192x1001 8x19x256x256 128x10 \
    --only imae imae_out imae_graph imae_none cross_entropy cross_entropy_compiled cross_entropy_graph \
    cross_entropy_none by_hand by_hand_compiled liger quack quack_at_once copy --output "$out/cuda.json"
  step head 45 "nvidia-smi,benchmarks/linear_head.py" "$python" -m benchmarks.linear_head --device cuda \
    --preset small --dtype bfloat16 --no-memory --out "$out/linear_head_cuda.json"
}
stage_4() {
  check memcheck 35 memcheck
  check racecheck 30 racecheck tile row2 row8 row32 row128 row256 strided
  check initcheck 25 initcheck
  check synccheck 18 synccheck
  FATAL=0 check clusters 12 racecheck cluster # it may not know of memory shared between blocks
}
stage_5() { # few epochs of a part of the images: what a smaller network tells in a minute, and no more
  step cifar10 70 "nvidia-smi,$data" "$python" -m benchmarks.noisy_labels sweep --data cifar10 --directory "$data" \
    --network resnet8 --limit 20000 --noises symmetric:0.4 --losses cce imae gce nce+mae --lr 0.05 --epochs 12 \
    --measure-every 3 --schedule cosine --weight-decay 1e-4 --device cuda --amp --processes 4 --seeds 1 --out "$runs"
  step report 10 "$runs" "$python" -m benchmarks.noisy_labels report "$runs" --to build/gpu_report --archive "$out"
}

cuda=${CUDA_HOME:-/usr/local/cuda}
archs=${ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -x '[0-9.]*' | sort -u | paste -sd ';')}
export TORCH_CUDA_ARCH_LIST=${archs:-9.0} # whatever it is set to for other packages
export IMAE_EXT_REQUIRE=1 MAX_JOBS=${MAX_JOBS:-8} PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # the package is built in place
export PATH=$PATH:$cuda/bin:$cuda/compute-sanitizer
[ "$dry" = 1 ] || { mkdir -p "$out" && : >"$log"; }
for stage in "${stages[@]}"; do "stage_$stage"; done
if [ "$dry" = 1 ]; then
  printf '%-13s %3d s of %d s\n' total "$total" "$limit"
  [ "$total" -le "$limit" ]
  exit
fi
[ ! -e "$out/gpu_times.json" ] || timeout 20 "$python" -m benchmarks.gpu_times --show "$out/gpu_times.json"
printf %s "$summary"
exit $failed
