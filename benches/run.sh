#!/usr/bin/env bash
# `make bench`: the programs of docs/benchmarks.md that need nothing but this machine, one after the other. Those that need servers or much
# memory have commands of their own there. K6=/path/to/k6 measures k6 beside.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked -p muster-bench -p muster --bin muster --bins
for program in "throughput 7 4" "memory 2500 2 30" "stall 1000 60 50" "skew target/release/muster 100 5" "forecast"; do
  echo "# bench-$program" >&2
  # shellcheck disable=SC2086
  target/release/bench-$program
done
