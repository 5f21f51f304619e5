#!/usr/bin/env bash
# A step alone and beside 1, 2 and 8 busy processes, as the program does it and with OpenMP's own settings.
# Run it on a machine that does nothing else: SIMLA=target/release/simla bash benchmarks/busy/run.sh > benchmarks/busy/DATE.txt
set -euo pipefail
simla=${SIMLA:-simla}
echo "# $(date -u +%F), $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
for preset in tiny base; do
  batch=32; [ $preset = base ] && batch=4
  for dtype in f32 bf16; do
    measure() { echo "## $preset $dtype, $1"; shift; env "$@" "$simla" bench busy --preset $preset --batch $batch --dtype $dtype; }
    measure "as the program does it" A=
    measure "all threads, OpenMP's waits (before)" OMP_NUM_THREADS="$(nproc)"
    measure "all threads, OMP_WAIT_POLICY=passive" OMP_NUM_THREADS="$(nproc)" OMP_WAIT_POLICY=passive
  done
done
