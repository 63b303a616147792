#!/usr/bin/env bash
# run.sh - fuzz: run.sh BUILD SECONDS [TARGET...] runs each target of a build with RESNET_FUZZ for that long, side by
# side. What was learnt stays in RESNET_FUZZ_CORPUS (BUILD/corpus), and the next run goes on from there; an input
# that breaks something is left in RESNET_FUZZ_CORPUS/TARGET.found and belongs into tests/fuzz/regressions/TARGET.
set -euo pipefail
build=$1 seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
corpus=${RESNET_FUZZ_CORPUS:-$build/corpus}
[ $# -gt 0 ] || set -- model loader image guards preprocess lists
declare -A most=([model]=65536 [loader]=8192 [image]=16384 [guards]=8192 [preprocess]=64 [lists]=4096)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

fuzz() { # TARGET
    local target=$1 known=("$build/seeds/$1") log="$logs/$1"
    mkdir -p "$corpus/$target" "$corpus/$target.found"
    [ ! -d "$here/regressions/$target" ] || known+=("$here/regressions/$target")
    if ! "$build/tests/fuzz/fuzz_$target" "$corpus/$target" "${known[@]}" \
        -max_total_time="$seconds" -max_len="${most[$target]}" -timeout=25 -rss_limit_mb=2048 -close_fd_mask=2 \
        -artifact_prefix="$corpus/$target.found/" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz_$target: found something: see $corpus/$target.found"
        return 1
    fi
    awk -v target="$target" '/number_of_executed_units/ {n = $2} /new_units_added/ {a = $2} / cov: / {c = $4}
        END {printf "fuzz_%s: %d executions, %d edges, %d inputs added\n", target, n, c, a}' "$log"
}

"$build/tests/fuzz/fuzz_seeds" "$build/seeds" 2>/dev/null >/dev/null
running=() failed=0
for target; do
    fuzz "$target" &
    running+=($!)
done
for process in "${running[@]}"; do
    wait "$process" || failed=1
done
exit "$failed"
