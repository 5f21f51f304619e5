#!/bin/bash
# What PLAN.md wants of a first hour on a GPU, part by part, each of nine minutes at most:
#   benchmarks/gpu/run.sh FOLDER [PART...]      without parts: those that FOLDER does not have yet, in order
#   benchmarks/gpu/run.sh FOLDER list           the parts, and which are done
# Raw output goes to FOLDER/PART.txt; a part is done when FOLDER/PART.done is there, and begins anew where it was cut off.
# SIMLA and PARITY name the programs (cargo xtask build; cargo test --release --workspace --test parity --no-run), REFERENCE the peer
# (simla_reference.py; without, parts with a peer leave it out), PYTHON a Python with torch 2.11, CAPTIONS a JSON file of real pairs.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?FOLDER}
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
simla=${SIMLA:-$here/../../target/release/simla}
python=${PYTHON:-python3}
parts=(start parity attention batches precision memory run cpu retrieval tokenizer two-processes repeat)
limit=520 # seconds; with what ending it takes, nine minutes

# Says the command, then runs it; what fails does not end the part.
try() {
    echo "\$ $*"
    "$@" || echo "FAILED with status $?"
}

bench() { try "$simla" bench step --device cuda --steps 20 --warmup 5 "$@"; }
peer() {
    [ -n "${REFERENCE:-}" ] && try "$python" "$here/peer.py" "$REFERENCE" bench --device cuda --steps 20 --warmup 5 "$@"
}

# Drawn scenes, and a tokenizer for pictures of the base size, for parts that train; made once.
pairs=$folder/demo/scenes/train.json
train=(--data "$pairs" --set preset=base --set dtype=bf16 --set batch_size=32 --set dvae_width=64)
scenes() {
    [ -e "$pairs" ] || try "$simla" demo --device cuda --scenes 400 --held-out 64 --question-steps 0 --set steps=20 --output "$folder/demo"
    [ -d "$folder/dvae/checkpoints" ] ||
        try "$simla" dvae train --device cuda "${train[@]}" --set dvae_steps=60 --set dvae_batch_size=32 --output "$folder/dvae"
}
pretrain() { try "$simla" pretrain --device "${device:-cuda}" "${train[@]}" --dvae "$folder/dvae" "$@"; } # of a setting, the last counts
losses() { grep -o '"loss/total":[^,]*' "$folder/$1/metrics.jsonl"; }

part_start() {
    try nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
    try "$simla" doctor
    bench --preset tiny
    try "$simla" bench step --preset tiny --device cuda:7
}

part_parity() {
    export SIMLA_PARITY_DIR=${SIMLA_PARITY_DIR:-$here/../../crates/simla/tests/fixtures/pretrain-step} SIMLA_PARITY_DEVICE=cuda
    try "${PARITY:?}" --test-threads=1
    echo "the same in TF32, to see how far apart that gets: differences are expected"
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 try "$PARITY" --test-threads=1
}

part_attention() {
    bench --dtype bf16 --batch 64 --profile
    peer --dtype bf16 --batch 64
    bench --dtype bf16 --batch 64
    peer --dtype bf16 --batch 64 --compile
    bench --dtype bf16 --batch 64
}

part_batches() {
    for batch in 8 32 128 256; do
        bench --dtype bf16 --batch $batch
        peer --dtype bf16 --batch $batch
    done
    bench --dtype bf16 --batch 128 --recompute
}

part_precision() {
    bench --dtype f32 --batch 64
    bench --dtype f32 --batch 64 --tf32
    peer --dtype f32 --batch 64 # in TF32
    bench --dtype f32 --batch 64 --tf32
}

part_memory() {
    for dtype in bf16 f32; do
        try "$simla" bench memory --device cuda --dtype $dtype
        try "$simla" bench memory --device cuda --dtype $dtype --recompute
    done
    scenes
    rm -rf "$folder/too-large" "$folder/auto"
    echo "more than fits, and as many as fit:"
    pretrain --set dtype=f32 --set batch_size=400 --set steps=2 --output "$folder/too-large"
    pretrain --set dtype=f32 --set batch_size=auto --set steps=4 --output "$folder/auto"
}

part_run() {
    scenes
    rm -rf "$folder/whole" "$folder/killed"
    pretrain --set steps=60 --set save_every_steps=20 --output "$folder/whole"
    # Killed after its second checkpoint.
    pretrain --set steps=60 --set save_every_steps=20 --output "$folder/killed" &
    until [ -e "$folder/killed/checkpoints/step-00000040" ] || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
    kill -KILL $(pgrep -P $!) 2>/dev/null
    wait
    try "$simla" pretrain --device cuda --resume "$folder/killed"
    try tail -n 3 "$folder/whole/metrics.jsonl" "$folder/killed/metrics.jsonl"
    echo "the same losses, but for the clock:"
    try diff <(losses whole) <(losses killed)
}

# Without dropout, which each device draws by itself.
part_cpu() {
    scenes
    local device
    for device in cpu cuda; do
        rm -rf "$folder/on-$device"
        pretrain --set batch_size=8 --set dropout=0 --set steps=4 --output "$folder/on-$device"
        losses "on-$device"
    done
}

part_retrieval() {
    for dtype in f32 bf16; do
        try "$simla" bench retrieval --device cuda --dtype $dtype --images 512 --captions 2048
        [ -n "${REFERENCE:-}" ] &&
            try "$python" "$here/../retrieval/peer.py" "$REFERENCE" --device cuda --dtype $dtype --images 512 --captions 2048
    done
    [ -n "${CAPTIONS:-}" ] && try "$simla" eval retrieval --device cuda --dtype bf16 --checkpoint "$folder/whole" --data "$CAPTIONS" --top-k 64
}

part_tokenizer() {
    scenes
    rm -rf "$folder/tokenizer"
    try "$simla" dvae train --device cuda "${train[@]}" --set dvae_steps=200 --set dvae_batch_size=32 --output "$folder/tokenizer"
}

# Several processes on one GPU go by way of the host (gloo), since NCCL refuses to share one; NCCL itself is tried with one process.
part_two-processes() {
    scenes
    local more=(--set accumulate=2 --set steps=10)
    rm -rf "$folder/alone" "$folder/two" "$folder/torchrun"
    pretrain "${more[@]}" --output "$folder/alone"
    pretrain "${more[@]}" --output "$folder/two" --processes 2
    command -v torchrun >/dev/null &&
        try torchrun --no-python --nproc-per-node 1 "$simla" pretrain --device cuda "${train[@]}" --dvae "$folder/dvae" "${more[@]}" \
            --output "$folder/torchrun"
    try tail -n 1 "$folder"/{alone,two,torchrun}/metrics.jsonl
}

part_repeat() {
    scenes
    for run in first second; do
        rm -rf "$folder/$run"
        pretrain --set steps=20 --output "$folder/$run"
    done
    echo "the same, but for the clock:"
    try diff <(losses first) <(losses second)
}

if [ "${1:-}" = list ]; then
    for part in "${parts[@]}"; do
        [ -e "$folder/$part.done" ] && echo "$part: done" || echo "$part"
    done
    exit
fi
[ $# -gt 0 ] && parts=("$@")
for part in "${parts[@]}"; do
    [ $# -eq 0 ] && [ -e "$folder/$part.done" ] && continue
    if [ -z "${WITHIN:-}" ]; then
        # In a process of its own, which is ended with all that it started.
        WITHIN=1 timeout -k 10 $limit bash "${BASH_SOURCE[0]}" "$folder" "$part" >"$folder/$part.txt" 2>&1
        status=$?
        [ $status -eq 0 ] && touch "$folder/$part.done"
        echo "$part: status $status, $folder/$part.txt"
        exit $status # one part a call
    fi
    "part_$part"
    exit 0
done
echo "all parts are done"
