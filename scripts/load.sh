#!/usr/bin/env bash
# Measures one daemon that polls a large emulated fleet on this machine, and prints the figures of docs/benchmarks.md.
#
#   scripts/load.sh [--hosts 10000] [--base 10] [--warm-up 30] [--seconds 60] [--keep]
#
# Polls are counted by the fleet, not by the daemon: each poll asks a host for /version exactly once. Two lab processes
# share the fleet, since each host costs the lab two file descriptors. Needs curl and jq.
set -euo pipefail
cd "$(dirname "$0")/.."

hosts=10000 base=10 warm_up=30 seconds=60 keep=
while [ $# -gt 0 ]; do
    case $1 in
    --hosts) hosts=$2; shift 2 ;;
    --base) base=$2; shift 2 ;;
    --warm-up) warm_up=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --keep) keep=yes; shift ;;
    *) sed -n '2,6s/^# \?//p' "$0" >&2; exit 2 ;;
    esac
done

cargo build --release --locked --quiet --bin pulse --example lab
pulse=target/release/pulse lab=target/release/examples/lab
dir=$(mktemp -d)
processes=()
clean_up() {
    kill "${processes[@]}" 2>/dev/null || true
    wait || true
    if [ -n "$keep" ]; then echo "kept: $dir" >&2; else rm -rf "$dir"; fi
}
trap clean_up EXIT

# The labs, each with half of the fleet at addresses of its own.
half=$((hosts / 2))
for part in 1 2; do
    "$lab" --plan uniform --hosts "$half" --first-address $(((part - 1) * half)) --seed "$part" \
        --control 127.0.0.1:0 --instances-out "$dir/part$part.json" >"$dir/lab$part.log" &
    processes+=($!)
done
for part in 1 2; do
    until grep -q 'hosts are up' "$dir/lab$part.log"; do
        kill -0 "${processes[$((part - 1))]}"
        sleep 0.2
    done
    control=$(sed -n 's/^control port: //p' "$dir/lab$part.log")
    # One file of addresses for curl: the counters of every host.
    jq -r --arg control "$control" '.instances[] | "url = \($control)/hosts/\(.name)/stats"' "$dir/part$part.json"
done >"$dir/counters"

# With the longest interval at the base, hosts that prove quiet are polled no more rarely.
data=$dir/data
mkdir "$data"
jq -s '[.[].instances] | {instances: [.[0][], (.[1][] | .name = "second-" + .name)]}' "$dir"/part?.json >"$data/instances.json"
jq -n --arg base "${base}s" --arg min "$((base / 2))s" \
    '{adaptivePollingBaseInterval: $base, adaptivePollingMinInterval: $min, adaptivePollingMaxInterval: $base}' \
    >"$data/system.json"
"$pulse" serve --data-dir "$data" --listen 127.0.0.1:17655 --metrics-listen 127.0.0.1:19091 \
    >"$dir/pulse.out" 2>"$dir/pulse.log" &
daemon=$!
processes+=("$daemon")

polls() { curl --silent --fail --config "$dir/counters" | jq -s 'map(.requestsByPath["/api2/json/version"] // 0) | add'; }
scrape() { curl --silent --fail http://127.0.0.1:19091/metrics >"$dir/metrics-$1"; }
# The sum of all series of a metric in a scrape.
total() { awk -v name="$2" '$1 == name || index($1, name "{") == 1 { sum += $2 } END { print sum + 0 }' "$dir/metrics-$1"; }
# How much a metric grew between the two scrapes.
grown() { jq -n "$(total after "$1") - $(total before "$1")"; }
# Within how many seconds 99 % of what a histogram saw between the scrapes lies: the bound of a bucket.
within() {
    awk -v name="$1_bucket{le=" '
        index($1, name) == 1 { split($1, part, "\""); if (FNR == NR) before[part[2]] = $2; else { bound[++n] = part[2]; seen[n] = $2 - before[part[2]] } }
        END { for (i = 1; i <= n; i++) if (seen[i] >= 0.99 * seen[n]) { print bound[i]; exit } }' "$dir/metrics-before" "$dir/metrics-after"
}
handshakes() { curl --silent --fail --config "$dir/counters" | jq -s 'map(.handshakes) | add'; }
# Seconds of one core that a process has used.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/^.*\) /, ""); print ($12 + $13) / hz }' "/proc/$1/stat"; }
resident() { awk '/^'"$2"':/ { print int($2 / 1024) }' "/proc/$1/status"; }
now() { date +%s.%N; }

echo "warming up for $warm_up s" >&2
sleep "$warm_up"
polls_before=$(polls) handshakes_before=$(handshakes) cpu_before=$(cpu "$daemon") began=$(now)
labs_before="$(cpu "${processes[0]}"),$(cpu "${processes[1]}")"
scrape before

# The age of every last success, as the daemon's own answer shows it, every five seconds.
until [ "$(jq -n "$(now) - $began >= $seconds")" = true ]; do
    sleep 5
    "$pulse" health --data-dir "$data" --json >"$dir/health.json"
    # Times to the millisecond: jq's own dates know whole seconds only.
    jq 'def ms: (.[0:19] + "Z" | fromdate) * 1000 + ((.[19:-1] + "000")[0:4] | ltrimstr(".") + "000" | .[0:3] | tonumber);
        (.updatedAt | ms) as $now | .staleness[] | $now - (.lastSuccess // .updatedAt | ms)' \
        "$dir/health.json" >>"$dir/ages"
    jq '[.instances[] | select(.pollStatus.consecutiveFailures > 0)] | length' "$dir/health.json" >>"$dir/failing"
done

spent=$(jq -n "$(now) - $began")
polls_after=$(polls) cpu_after=$(cpu "$daemon") handshakes_after=$(handshakes)
labs_after="$(cpu "${processes[0]}"),$(cpu "${processes[1]}")"
scrape after
jq -rn --argjson spent "$spent" --argjson polls "$((polls_after - polls_before))" --argjson hosts "$hosts" \
    --argjson base "$base" --argjson handshakes "$((handshakes_after - handshakes_before))" \
    --argjson cpu "$(jq -n "$cpu_after - $cpu_before")" --arg resident "$(resident "$daemon" VmRSS)" \
    --arg peak "$(resident "$daemon" VmHWM)" --argjson labs "[$labs_before,$labs_after]" \
    --argjson told "$(grown pulse_monitor_poll_total)" --argjson failed "$(grown pulse_monitor_poll_errors_total)" \
    --argjson lag "$(jq -n "$(grown pulse_monitor_schedule_lag_seconds_sum) / $(grown pulse_monitor_schedule_lag_seconds_count)")" \
    --arg lag99 "$(within pulse_monitor_schedule_lag_seconds)" \
    --slurpfile ages "$dir/ages" --slurpfile failing "$dir/failing" '
    def share($p): sort | .[((length - 1) * $p | floor)];
    def figure: . * 100 | round / 100;
    "hosts:             \($hosts), base interval \($base) s: \($hosts / $base) polls/s wanted",
    "measured:          \($spent | round) s",
    "polls/s:           \($polls / $spent | figure) by the count of the hosts, \($told / $spent | figure) by the daemon\u0027s",
    "failed polls:      \($failed)",
    "schedule lag:      mean \($lag * 1000 | figure) ms, 99 % within \($lag99) s",
    "daemon CPU:        \($cpu / $spent * 100 | round) % of one core, \($cpu / $polls * 1e6 | round) µs a poll",
    "daemon memory:     \($resident) MiB, \($peak) MiB at its peak",
    "lab CPU:           \(($labs[2] + $labs[3] - $labs[0] - $labs[1]) / $spent * 100 | round) % of one core",
    "age of readings:   median \($ages | share(0.5)) ms, 99 % \($ages | share(0.99)) ms, most \($ages | max) ms",
    "TLS handshakes:    \($handshakes)",
    "failing instances: \($failing | max)"'
