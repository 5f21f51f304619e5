#!/bin/sh
# The program of today against the one of before its crates were put on their floors, in turn, on one machine.
#   benchmarks/house/run.sh BEFORE AFTER RUN PICTURES
# BEFORE is the program of commit 2cb2cbc, AFTER today's, built alike. RUN is a trained model that both read, PICTURES a folder to search.
# Times of the step and of retrieval are the program's own; those of a search are of the whole process: 'first' embeds the pictures,
# 'start' finds its index.
set -e
before=$1
after=$2
run=$3
pictures=$4
seconds() {
    start=$(date +%s.%N)
    "$@" >/dev/null 2>&1
    echo "$start $(date +%s.%N)" | awk '{ printf "%.2f s\n", $2 - $1 }'
}
grep -m1 "model name" /proc/cpuinfo
nproc
for turn in 1 2 3; do
    for program in before after; do
        eval simla=\$$program
        index=$(mktemp -d)
        search="$simla search dog --images $pictures --checkpoint $run --index $index/index"
        echo "$program search first: $(seconds $search)"
        echo "$program search start: $(seconds $search)"
        rm -r "$index"
        for dtype in f32 bf16; do
            echo "$program step small $dtype: $("$simla" bench step --preset small --batch 8 --dtype $dtype)"
        done
        echo "$program retrieval: $("$simla" bench retrieval)"
    done
done
