#!/usr/bin/env bash
# Plants each fault of sim/planted into a scratch copy of the last commit, builds the release `sim` with it, and hunts
# it; prints the table of docs/simulation.md.
#
#   scripts/planted.sh [NAME…]     all faults, or those named: 08, 15a, toggle-drops-a-queue
#
# SEEDS is the number of swarm seeds (2000). SCRATCH names a scratch copy to keep and to use again.
# Each fault takes a build of the whole daemon, whose router the simulator calls: some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
seeds=${SEEDS:-2000}
scratch=${SCRATCH:-$(mktemp -d)}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/planted} CARGO_INCREMENTAL=1

if [ ! -e "$scratch/.git" ]; then
    git worktree add --quiet --detach "$scratch" HEAD
    [ -n "${SCRATCH:-}" ] || trap 'git -C "$root" worktree remove --force "$scratch"' EXIT
fi

sim=$CARGO_TARGET_DIR/release/sim

# Each broken run of a farm: seed, scenario, rule.
hunt() {
    { "$sim" farm "$@" --json || true; } |
        jq -r '.broken[] | "\(.seed) \(.scenario) \(.violations[0].rule)"' | sort -n
}

found=0 lost=0
echo "| planted | scenario | first seed | seeds of swarm that find it | rule | shrunk |"
echo "| --- | --- | --- | --- | --- | --- |"
for patch in sim/planted/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qxF -e "${name%%-*}" -e "$name"; then continue; fi
    git -C "$scratch" checkout --quiet -- src/engine
    git -C "$scratch" apply "$root/$patch"
    (cd "$scratch" && cargo build --release --quiet -p sim)
    swarm=$(hunt swarm --seeds "$seeds")
    # The built-in scenarios find it too, or instead.
    named=$(hunt integration thundering-herd credential-rotation flapping slow-host mass-outage inventory-churn --seeds 3)
    first=$(printf '%s\n%s\n' "$swarm" "$named" | grep . | sort -n | head -n 1 || true)
    if [ -z "$first" ]; then
        echo "| $name | not found | | 0 of $seeds | | |"
        lost=$((lost + 1))
        continue
    fi
    read -r seed scenario rule <<<"$first"
    shrunk=$({ "$sim" shrink "$scenario" "$seed" || true; } | sed -n 's/^before: *//p; s/^after: *//p' | paste -sd'>')
    echo "| $name | $scenario | $seed | $(grep -c . <<<"$swarm" || true) of $seeds | \`$rule\` | ${shrunk/>/ → } |"
    found=$((found + 1))
done
echo
echo "$found found, $lost not"
[ "$lost" -eq 0 ]
