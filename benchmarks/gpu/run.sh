#!/bin/sh
# Everything on a GPU that does nothing else: agreement with the reference, then memory, the step and retrieval against the peer in turn.
#   benchmarks/gpu/run.sh SIMLA PARITY REFERENCE PYTHON...   e.g. target/release/simla parity simla_reference.py python3
# PARITY is the test program that this names: cargo test --release -p simla --test parity --no-run
# BATCHES (default "64 128") are tried in the step.
simla=$1
parity=$2
reference=$3
shift 3
here=$(dirname "$0")
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

SIMLA_PARITY_DIR=${SIMLA_PARITY_DIR:-$here/../../crates/simla/tests/fixtures/pretrain-step} SIMLA_PARITY_DEVICE=cuda \
    "$parity" --test-threads=1

for dtype in f32 bf16; do
    "$simla" bench memory --device cuda --dtype $dtype --batches 8 32
done
for batch in ${BATCHES:-64 128}; do
    ours="$simla bench step --device cuda --dtype bf16 --batch $batch --steps 20 --warmup 5"
    theirs="$reference bench --device cuda --dtype bf16 --batch $batch --steps 20 --warmup 5"
    $ours --profile
    "$@" $theirs
    $ours
    "$@" $theirs --compile
    $ours
    "$@" $theirs
done
for dtype in f32 bf16; do
    "$simla" bench retrieval --device cuda --dtype $dtype --images 512 --captions 2048
    "$@" "$here/../retrieval/peer.py" "$reference" --device cuda --dtype $dtype --images 512 --captions 2048
done
