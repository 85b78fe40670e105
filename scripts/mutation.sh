#!/usr/bin/env bash
# Changes the scheduler in every way that cargo-mutants knows, one at a time, and asks the simulator and the property tests
# whether they notice. Takes hours; what to change and who judges is in .cargo/mutants.toml.
#
#   scripts/mutation.sh [more options of cargo mutants, such as --file src/engine/breaker.rs or --shard 0/8]
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants
# The judges hold on the scheduler as it is; a mutant that makes time stand still for them is caught by the timeout.
cargo test --locked --profile mutation -p mutation
exec cargo mutants -p pulse --baseline skip --timeout 60 --output target/mutants "$@"
