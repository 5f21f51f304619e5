#!/usr/bin/env bash
# What several processes cost: one process of two threads against two of one, in turn, on the same steps of the same run.
# SIMLA=target/release/simla bash benchmarks/processes/run.sh FOLDER > benchmarks/processes/DATE.txt
set -euo pipefail
simla=${SIMLA:-simla}
work=${1:?a folder for the runs}
rounds=${ROUNDS:-3}
mkdir -p "$work"
echo "# $(date -u +%F), $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2), load $(cut -d' ' -f1 /proc/loadavg)"
# Scenes, and a tokenizer for each preset: a demo of two steps.
[ -d "$work/scenes" ] || "$simla" demo --output "$work" --scenes 400 --held-out 8 --question-steps 0 --set steps=1 --set dvae_steps=1 > /dev/null 2>&1
data=(--data "$work/scenes/train.json")
measure() { # name preset batch steps more...
  local name=$1 preset=$2 batch=$3 steps=$4; shift 4
  rm -rf "$work/run"
  "$simla" pretrain "${data[@]}" --output "$work/run" --dvae "$work/dvae-$preset" --set preset="$preset" --set batch_size="$batch" \
    --set queue_size=$((4 * batch)) --set steps="$steps" --set accumulate=2 --set workers=1 "$@" > /dev/null 2> "$work/said" || { cat "$work/said"; exit 1; }
  python3 - "$name" "$preset" "$batch" "$work/run/metrics.jsonl" <<'PYTHON'
import json, statistics, sys
name, preset, batch, path = sys.argv[1:]
rows = [json.loads(line) for line in open(path)][1:]  # the first takes memory
median = lambda of: statistics.median(of(row) for row in rows)
step = median(lambda row: 2 * int(batch) / row["machine/pairs_per_s"])
print(f"{preset:5} {name:28} step {step:8.3f} s  of it exchanged {median(lambda r: r.get('machine/exchange_s', 0)):6.3f} s"
      f"  sent {median(lambda r: r.get('machine/sent_gib', 0)):6.4f} GiB  memory of the first {max(r['machine/memory_gib'] for r in rows):5.2f} GiB"
      f"  last loss {rows[-1]['loss/total']:.6f}", flush=True)
PYTHON
}
for preset in tiny base; do
  batch=16 steps=12; [ $preset = base ] && batch=2 steps=4
  [ -d "$work/dvae-$preset" ] || "$simla" dvae train "${data[@]}" --output "$work/dvae-$preset" --set preset=$preset --set dvae_steps=1 --set dvae_batch_size=2 > /dev/null 2>&1
  for round in $(seq "$rounds"); do
    measure "one process, two threads" $preset $batch $steps --set threads=2
    measure "two processes, one thread" $preset $batch $steps --processes 2 --set threads=1
    measure "two, bf16 on the wire" $preset $batch $steps --processes 2 --set threads=1 --set wire=bf16
  done
done
