#!/bin/sh
# The loader against its peer in Pillow, in turn, on one machine that does nothing else.
#   benchmarks/loader/run.sh IMAGES SIMLA PEER...   e.g. /tmp/640x480 target/release/simla python3 loader_peer.py
# IMAGES is a folder of JPEGs of 640 x 480 pixels; pictures.py makes one of any photographs.
images=$1
simla=$2
shift 2
grep -m1 "model name" /proc/cpuinfo
nproc
for turn in 1 2 3; do
    "$@" bench "$images"
    "$simla" bench loader --images "$images" --json
done
