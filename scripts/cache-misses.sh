#!/usr/bin/env bash
# Counts what one cycle of the scheduler costs a processor, by fleet size: instructions, and what the first, second and third
# level of a cache of this machine's size do not hold. Prints the table of docs/benchmarks.md. Takes a quarter of an hour.
#
#   scripts/cache-misses.sh [SIZES, such as "80 1000 100000"]
#
# Counts are of valgrind's cachegrind, the difference between a run and the same with more polls, so that setting up the
# fleet is in none. It simulates two levels, so each size runs twice as well: once with the second, once with the third.
set -euo pipefail
cd "$(dirname "$0")/.."

sizes=${1:-12 80 1000 10000 100000 1000000}
polls=200000
first=49152,12,64 second=2097152,16,64 third=33554432,16,64
command -v valgrind >/dev/null || { echo "cache-misses: valgrind is needed (apt-get install valgrind)" >&2; exit 1; }
cargo build --release --locked --quiet --example engine_cycles
program=${CARGO_TARGET_DIR:-target}/release/examples/engine_cycles
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Instructions, misses of the first level and misses of the last, of a run.
count() {
    local last=$1 size=$2 polls=$3
    valgrind --tool=cachegrind --cache-sim=yes --I1=32768,8,64 --D1=$first --LL="$last" --log-file="$work/log" \
        --cachegrind-out-file="$work/out" "$program" "$size" "$polls"
    # Ir I1mr ILmr Dr D1mr DLmr Dw D1mw DLmw
    sed -n 's/^summary: //p' "$work/out" | awk '{ print $1, $5 + $8, $6 + $9 }'
}

# The same of one cycle.
cycle() {
    local few many
    few=$(count "$1" "$2" 1)
    many=$(count "$1" "$2" $((polls + 1)))
    # Setting up costs a few misses more or less from run to run.
    echo "$few $many" | awk -v polls=$polls '
        function each(more) { return more > 0 ? more / polls : 0 }
        { printf "%.0f %.1f %.2f\n", each($4 - $1), each($5 - $2), each($6 - $3) }'
}

echo "| instances | instructions | misses of the first level (48 KiB) | of the second (2 MiB) | of the third (32 MiB) |"
echo "| --- | --- | --- | --- | --- |"
for size in $sizes; do
    read -r instructions one two < <(cycle $second "$size")
    read -r _ _ three < <(cycle $third "$size")
    printf "| %'d | %s | %s | %s | %s |\n" "$size" "$instructions" "$one" "$two" "$three"
done
