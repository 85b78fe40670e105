#!/usr/bin/env bash
# What takes too long for every change: 240 minutes of the real daemon, 240 of the simulator, big farms of seeds, and a
# million hostile inputs.
#
#   scripts/nightly.sh [--out nightly] [--minutes 240] [--seeds 20000]
#
# Everything runs even if something before it failed; the exit code is that of the worst. Results are in the folder.
set -uo pipefail
cd "$(dirname "$0")/.."

out=nightly minutes=240 seeds=20000
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    *) sed -n '2,7s/^# \?//p' "$0" >&2; exit 2 ;;
    esac
done

mkdir -p "$out" || exit 2
cargo build --release --locked --bin soak --bin sim --bin fuzz || exit 2
soak=target/release/soak sim=target/release/sim fuzz=target/release/fuzz
worst=0
# Runs a command with its output in a file of its own as well.
run() {
    local name=$1
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$out/$name.txt"
    local code=${PIPESTATUS[0]}
    [ "$code" -le "$worst" ] || worst=$code
}

# Runs of the swarm through the real router, from this seed on, until one is broken.
routed() {
    for n in $(seq "$2"); do
        "$sim" run swarm --mode router --seed $(($1 + n)) >"$out/router-run.txt" || { cat "$out/router-run.txt"; return 1; }
    done
    echo "$2 runs, 0 broken"
}

# The same seed for everything that one night runs, and another one every night.
seed=$(($(date +%s) / 86400))
run fuzz "$fuzz" --requests 1000000 --seed "$seed"
run virtual "$soak" --virtual 240m --seed "$seed" --out "$out/virtual"
run farm-documented "$sim" farm integration soak --seeds $((seeds / 10)) --from $((seed * 1000))
run farm-all "$sim" farm --seeds $((seeds / 20)) --from $((seed * 1000))
run farm-swarm "$sim" farm swarm --seeds "$seeds" --from $((seed * 1000))
run router routed $((seed * 1000)) $((seeds / 20))
run real "$soak" --minutes "$minutes" --seed "$seed" --out "$out/real"
exit "$worst"
