#!/bin/sh
# Encoding and re-ranking against the peer in PyTorch, in turn, on one machine that does nothing else.
#   benchmarks/retrieval/run.sh SIMLA REFERENCE PYTHON...   e.g. target/release/simla simla_reference.py python3
simla=$1
reference=$2
shift 2
grep -m1 "model name" /proc/cpuinfo
nproc
for dtype in f32 bf16 f32 bf16; do
    echo "simla $dtype"
    "$simla" bench retrieval --dtype $dtype
    echo "peer $dtype"
    "$@" "$(dirname "$0")/peer.py" "$reference" --dtype $dtype
done
