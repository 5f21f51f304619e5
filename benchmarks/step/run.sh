#!/bin/sh
# The pre-training step against its peer in PyTorch, in turn, on one machine that does nothing else.
#   benchmarks/step/run.sh SIMLA PEER...   e.g. target/release/simla python3 simla_reference.py
simla=$1
shift
grep -m1 "model name" /proc/cpuinfo
nproc
for dtype in f32 bf16 f32 bf16; do
    echo "simla $dtype"
    "$simla" bench step --preset base --batch 4 --steps 3 --dtype $dtype
    echo "peer $dtype"
    "$@" bench --batch 4 --steps 3 --dtype $dtype
done
