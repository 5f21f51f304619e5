#!/bin/sh
# A server over a folder of pictures that are indexed: the page, searches by 1, 8 and 64 clients, a soak, memory; and the same search by
# the command line.
#   benchmarks/serve/run.sh RUN PICTURES SIMLA LOAD   e.g. runs/demo/run pictures target/release/simla target/release/examples/load
# LOAD is made by: cargo build --release -p simla-serve --example load
set -e
run=$1
pictures=$2
simla=$3
load=$4
said=$(mktemp)
start=$(date +%s)
"$simla" search "a red circle" --images "$pictures" --checkpoint "$run" --top 1
echo "indexed, or its index read, and searched in $(($(date +%s) - start)) s"
for time in first second; do
    start=$(date +%s%N)
    "$simla" search "a red circle" --images "$pictures" --checkpoint "$run" --top 1 | tail -1
    echo "the command line, $time time, with the start of the program: $((($(date +%s%N) - start) / 1000000)) ms"
done
"$simla" serve --checkpoint "$run" --images "$pictures" --port 0 >"$said" &
server=$!
trap 'kill $server' EXIT
until grep -q http "$said"; do sleep 0.1; done
address=$(cut -d' ' -f1 "$said")
# 'own': without what is mapped from files, such as the index.
memory() { awk -v when="$1" '/^(VmHWM|VmRSS|RssAnon)/ {kb[$1] = $2} END {printf "memory %s: %d MiB, of it own %d, at most %d\n", when, kb["VmRSS:"] / 1024, kb["RssAnon:"] / 1024, kb["VmHWM:"] / 1024}' /proc/$server/status; }
sleep 5
memory "at the start"
"$load" "$address" page
"$load" "$address" search
memory "after the searches"
for time in 1 2 3; do
    "$load" "$address" soak
    memory "after soak $time"
done
