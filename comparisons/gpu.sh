#!/bin/bash
# What one GPU has to show, in one command under nine minutes: tests, tuning, timings, peers.
#
#   OUT=runs/gpu comparisons/gpu.sh
#
#   tests      those marked `accelerator`, on the GPU
#   tune_*     the tuner measures and keeps its choice, which the timings then take
#   others     a task of launch.benchmark each, or of comparisons.compare against a peer
#
# DATA=DIR       CIFAR-10; noise of its form without it, which takes as long and learns nothing
# TORCH_ENV=DIR  an environment with PyTorch, PFL_ENV=DIR one with pfl-research (peers/make_env.sh,
#                with "gpu"); by default PyTorch of PYTHON, if it is there, and no pfl-research
# PYTHON=.venv/bin/python, LIMIT=530 seconds in all, ONLY="tests pfl_cifar10" for some steps
# SMALL=1        tiny settings: a rehearsal on any machine, minutes on two CPU cores
#
# Every step has a limit of its own, and none begins without time left; one that fails or is cut
# short does not stop the next. OUT has a JSON file and a log for each, steps.jsonl (what each came
# to, in how many seconds) and tuning/ (the tuner's files); OUT.tar.gz has all of it. The status is
# that of the worst step: 0 if all were done, 1 if one failed, 2 if time ran out.
set -uo pipefail
cd "$(dirname "$0")/.."

OUT=$(realpath -m "${OUT:-runs/gpu}")
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
LIMIT=${LIMIT:-530}
SMALL=${SMALL:-}
DATA=${DATA:-}
ONLY=${ONLY:-}
PFL_ENV=${PFL_ENV:-}
TORCH_ENV=${TORCH_ENV:-}
if [ -z "$TORCH_ENV" ] && "$PYTHON" -c 'import torch' 2>/dev/null; then
    TORCH_ENV=$(dirname "$(dirname "$PYTHON")")
fi

mkdir -p "$OUT"
: > "$OUT/steps.jsonl"
# One GPU, also where there are more: peers take one.
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
# Choices are made anew; compiled programs are shared by the steps.
export XDG_CACHE_HOME="$OUT/cache"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$OUT/cache/xla}"
worst=0

# step NAME SECONDS COMMAND...: run it for so long at most, and no longer than there is time.
step() {
    local name=$1 most=$2 began=$SECONDS left=$((LIMIT - SECONDS)) came="out of time" code=0
    shift 2
    if [ -n "$ONLY" ] && [[ " $ONLY " != *" $name "* ]]; then return; fi
    if [ "$left" -ge 5 ]; then
        timeout --kill-after=5 "$((most < left ? most : left))" "$@" > "$OUT/$name.log" 2>&1
        code=$?
        case $code in
            0) came=done ;;
            124 | 137) came="cut short" ;;
            *) came=failed ;;
        esac
    fi
    if [ "$came" = failed ]; then worst=1; tail -n 5 "$OUT/$name.log"; fi
    if [ "$came" != done ] && [ $worst -eq 0 ]; then worst=2; fi
    printf '{"step": "%s", "came_to": "%s", "status": %d, "seconds": %d}\n' \
        "$name" "$came" "$code" "$((SECONDS - began))" | tee -a "$OUT/steps.jsonl"
}

# bench NAME SECONDS --task=... [FLAGS]: a task of launch.benchmark.
bench() {
    local name=$1 most=$2
    shift 2
    step "$name" "$most" "$PYTHON" -m launch.benchmark "$@" --json="$OUT/$name.json"
}

# family NAME SECONDS WIDTH ROUNDS: the family's protocol, 32 clients a round, in bfloat16.
family() {
    bench "$1" "$2" --task=family_cifar10 --data_dir="$DATA" --width="$3" --rounds="$4" \
        --cohort="$COHORT" --dtype=bfloat16
}

# against NAME SECONDS PEER ENV [FLAGS]: in turn with a peer, if its environment is there.
against() {
    local name=$1 most=$2 peer=$3 env=$4
    shift 4
    if [ -z "$env" ]; then return; fi
    step "$name" "$most" "$PYTHON" -m comparisons.compare --peer="$peer" --env="$env" \
        --data_dir="$DATA" --json="$OUT/$name.json" "$@"
}

if [ -n "$SMALL" ]; then
    ROUNDS=1 COHORT=2 NARROW=2 WIDE=4 MANY="--num_clients=40 --cohort=4 --width=2" IMAGES=200 PAIRS=1
    SD="--checkpoint=tests/diffusion/goldens/sd1 --batch_sizes=2 --repeats=1" SIDES="32 64"
    PLATFORM=${JAX_PLATFORMS:-cpu}
else
    ROUNDS=10 COHORT=32 NARROW=16 WIDE=64 MANY="" IMAGES=10000 PAIRS=2
    SD="--checkpoint=random-sd15 --batch_sizes=16 --repeats=3" SIDES="512 256"
    PLATFORM=cuda,cpu
fi
if [ -z "$DATA" ]; then
    DATA=$OUT/cache/noise
    "$PYTHON" -m comparisons.noise_cifar10 "$DATA" --per_batch=$IMAGES
fi

nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1
step tests 100 env SEMANTICFL_TEST_PLATFORM="$PLATFORM" \
    XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true" \
    "$PYTHON" -m pytest -q -n 0 -m accelerator -W default tests/federated/test_accelerator.py
family tune_width$WIDE 110 $WIDE 1
family family_width$WIDE 60 $WIDE "$ROUNDS"
against torch_width$WIDE 90 pytorch_loop "$TORCH_ENV" --task=family_cifar10 --width=$WIDE \
    --cohort=$COHORT --dtype=bfloat16 --memory_format=channels_last --rounds=3 --alternations=$PAIRS
# shellcheck disable=SC2086
bench pfl_cifar10 60 --task=pfl_cifar10 --data_dir="$DATA" --rounds=$((2 * ROUNDS)) --tuning=never
against pfl_research 60 pfl_research "$PFL_ENV" --task=pfl_cifar10 --rounds=$((2 * ROUNDS)) \
    --alternations=$PAIRS
for side in $SIDES; do
    # shellcheck disable=SC2086
    bench anchors_$side 90 --task=anchors $SD --dtype=bfloat16 --resolution=$side
done
family tune_width$NARROW 90 $NARROW 1
family family_width$NARROW 60 $NARROW "$ROUNDS"
# shellcheck disable=SC2086
bench many_clients 90 --task=many_clients --data_dir="$DATA" $MANY --rounds=3 --tuning=never
bench guidance 60 --task=guidance --data_dir="$DATA" --width=$NARROW --rounds="$ROUNDS" --tuning=never
against torch_pfl 60 pytorch_loop "$TORCH_ENV" --task=pfl_cifar10 --rounds=$ROUNDS --alternations=$PAIRS

cp -r "$OUT/cache/semanticfl_jax/tuning" "$OUT/" 2>/dev/null
tar -czf "$OUT.tar.gz" -C "$OUT" --exclude=./cache .
echo "$OUT.tar.gz, after $SECONDS s"
exit $worst
