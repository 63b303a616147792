# bench_start.sh - how soon the first answer comes: sh tools/bench_start.sh [--ort FOLDER MODEL.onnx]... MODEL.resnet...
#
# For each model, medians of 11 starts on as many threads as there are: what loading it took, and the whole of resnet
# classify on a sample, from its start to its end. For each ONNX model, with onnxruntime-node in FOLDER: making a session,
# the first run, and the whole of node. Files come from the page cache.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
program=$root/build/resnet photo=$root/models/samples/church.png
starts=11
[ -x "$program" ] || { echo "build the program first: cmake -S . -B build && cmake --build build" >&2 && exit 4; }

median() {
    sort -n | sed -n "$(((starts + 1) / 2))p"
}

# wall COMMAND...: its milliseconds from start to end; what it prints goes to the file $printed.
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
wall() {
    start=$(date +%s%N)
    "$@" >"$printed"
    echo $((($(date +%s%N) - start) / 10000)) | sed 's/..$/.&/'
}

# repeat COMMAND...: a line of the program's, or of ours, for each start
repeat() {
    for _ in $(seq $starts); do "$@"; done
}

ours_load() {
    "$program" bench --model "$1" --seconds 0 --json | sed -n 's/.*"load_ms":\([^,]*\).*/\1/p'
}

# "create first whole" in ms
theirs() {
    whole=$(wall node "$root/tools/bench_ort.mjs" "$1" "$2" "$(nproc)" 1 start)
    echo "$(cat "$printed") $whole"
}

printf '%-28s %10s %10s %10s   (ms)\n' model load "first run" whole
while [ $# -gt 0 ]; do
    if [ "$1" = --ort ]; then
        times=$(repeat theirs "$2" "$3")
        printf '%-28s' "ONNX Runtime, ${3##*/}"
        for column in 1 2 3; do printf ' %10.1f' "$(echo "$times" | cut -d ' ' -f $column | median)"; done
        echo
        shift 3
    else
        printf '%-28s %10.1f %10s %10.1f\n' "libresnet, ${1##*/}" "$(repeat ours_load "$1" | median)" "" \
            "$(repeat wall "$program" classify --model "$1" "$photo" | median)"
        shift
    fi
done
