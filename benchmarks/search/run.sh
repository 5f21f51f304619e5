#!/bin/bash
# What an index may leave out: patches in half precision, in 8 bits, or none, searched with the same phrases.
#   run.sh CHECKPOINT CAPTIONS.json PHRASES    (the authors' layout; the first caption of PHRASES of its pictures is looked for among all)
# Says of each: bytes a picture, time a search, recall, and how many rankings are those of half precision.
set -eu
checkpoint=$1 data=$2 phrases=${3:-200} here=$(dirname "$0") out=$(mktemp -d)
simla=${SIMLA:-simla}
python3 "$here/compare.py" phrases "$data" "$phrases" "$out"
for kept in half 8bit none; do
    "$simla" search --images "$out/images" --checkpoint "$checkpoint" --index "$out/$kept" --patches $kept --json --exact --top 64 \
        --candidates 64 < "$out/phrases.txt" > "$out/$kept.jsonl" 2> "$out/$kept.log"
done
python3 "$here/compare.py" results "$out"
rm -r "$out"
