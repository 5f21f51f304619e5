#!/bin/sh
# The loader against its peer in Pillow, in turn, on one machine that does nothing else; last, how many times as fast it is, a core.
#   benchmarks/loader/run.sh IMAGES SIMLA PEER...   e.g. /tmp/640x480 target/release/simla python3 loader_peer.py
# IMAGES is a folder of JPEGs of 640 x 480 pixels; pictures.py makes one of any photographs. The peer normalises: the first figure is the
# same work; training normalises on the device: the second.
set -e
images=$1
simla=$2
shift 2
grep -m1 "model name" /proc/cpuinfo
nproc
for turn in 1 2 3; do
    "$@" bench "$images"
    "$simla" bench loader --images "$images" --threads 1 --json
done | tee /dev/stderr | awk '
    function value(name) { sub(".*\"" name "\": *", ""); return $0 + 0 }
    /Pillow/ { peer += value("images_per_s_per_core"); next }
    { line = $0; bytes += value("images_per_s_per_core"); $0 = line; numbers += value("images_per_s_per_core_normalised") }
    END { printf "%.2f x Pillow normalised, %.2f x as in training\n", numbers / peer, bytes / peer }'
