# bench_peers.sh - measure us and ONNX Runtime in turn, and print the times and their ratios as a Markdown table:
#
#   sh tools/bench_peers.sh [--quick] [--ort FOLDER] [-o FILE.tsv]
#
# FOLDER (~/peers) has node_modules with onnxruntime-node. Each of our runs comes right behind one of theirs, five times
# over; times are medians of the five, a ratio is the median of the five pairs' ratios. FILE.tsv gets the same numbers.
# --quick tries whether everything works: one small network, two short turns. Takes about half an hour otherwise.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
program=$root/build/resnet
models=$root/build/peers # made here
ort=$HOME/peers output=/dev/null depths="18 50 152" turns=5 seconds=1

while [ $# -gt 0 ]; do
    case $1 in
    --quick) depths=18 turns=2 seconds=0.1 ;;
    --ort) ort=$2 && shift ;;
    -o) output=$2 && shift ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
[ -x "$program" ] || { echo "build the program first: cmake -S . -B build && cmake --build build" >&2 && exit 4; }
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT

has_isa() {
    "$program" bench --isa "$1" --arch resnet18 --size 32 --seconds 0 >/dev/null 2>&1
}

# make_model DEPTH SUFFIX OPTION...: the ONNX model, unless it is there.
make_model() {
    file=$models/resnet$1$2.onnx arch=resnet$1
    shift 2
    [ -f "$file" ] && return
    mkdir -p "$models"
    for python in python3 /usr/bin/python3; do
        if "$python" -c "import numpy, onnx" 2>/dev/null; then
            "$python" "$root/tools/make_onnx.py" "$arch" "$file.part" "$@" && mv "$file.part" "$file"
            return
        fi
    done
    echo "$file cannot be made: no Python here has onnx; apt-get install python3-onnx" >&2
}

# ours DEPTH THREADS BATCH PRECISION ISA, theirs DEPTH THREADS BATCH SUFFIX: the median in ms.
ours() {
    "$program" bench --arch "resnet$1" --threads "$2" --batch "$3" --precision "$4" --isa "$5" --seconds "$seconds" \
        --json | sed -n 's/.*"median_ms":\([^,]*\).*/\1/p'
}
theirs() {
    model=$models/resnet$1$4.onnx
    if [ -n "$version" ] && [ -f "$model" ]; then
        node "$root/tools/bench_ort.mjs" "$ort" "$model" "$2" "$3" "$seconds"
    else
        echo -
    fi
}

if ! version=$(node "$root/tools/bench_ort.mjs" "$ort" 2>/dev/null); then
    echo "ONNX Runtime is not in $ort, so only we are measured. To have it: apt-get install nodejs npm;" \
        "mkdir -p $ort; cd $ort; npm install --ignore-scripts onnxruntime-node@1.30.0" >&2
    version=
fi

# A variant is a precision and an instruction set. Without tiles, f32 is the FMA path and bf16x3 the same as f32.
variants="f32/auto bf16/auto int8/auto"
has_isa amx && variants="f32/avx512 f32/auto bf16x3/auto bf16/auto int8/auto"

for depth in $depths; do
    if [ -n "$version" ]; then
        make_model "$depth" ""
        make_model "$depth" -int8 --int8
    fi
    for cell in "2 1" "2 16" "1 1" "1 16"; do
        for turn in $(seq "$turns"); do
            echo "ResNet-$depth, threads and batch $cell, turn $turn of $turns" >&2
            for variant in $variants; do
                precision=${variant%/*} isa=${variant#*/} other=-
                # shellcheck disable=SC2086 # a cell is two words
                set -- "$depth" $cell
                their=$(theirs "$@" "")
                our=$(ours "$@" "$precision" "$isa")
                [ "$precision" = int8 ] && other=$(theirs "$@" -int8)
                [ "$isa" = auto ] || precision="$precision $isa"
                printf '%s\t' "$@" "$precision" "$our" "$their" "$other" >>"$samples"
                echo >>"$samples"
            done
        done
    done
done

# From a line a turn to a line a cell: medians of the times, and of the ratios of each pair.
awk -F '\t' -v OFS='\t' '
function median(list,    values, n, i, j, t) {
    n = split(list, values, " ")
    for (i = 2; i <= n; i++) # insertion sort
        for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) {
            t = values[j]
            values[j] = values[j - 1]
            values[j - 1] = t
        }
    return n ? (values[int((n + 1) / 2)] + values[int(n / 2) + 1]) / 2 : "-"
}
BEGIN {
    print "network", "threads", "batch", "precision", "ms", "ort_f32_ms", "ratio", "ort_int8_ms", "int8_ratio", "turns"
}
{
    key = "ResNet-" $1 OFS $2 OFS $3 OFS $4
    if (!(key in turns)) keys[++count] = key
    turns[key]++
    our[key] = our[key] " " $5
    if ($6 != "-") { their[key] = their[key] " " $6; ratio[key] = ratio[key] " " $5 / $6 }
    if ($7 != "-") { other[key] = other[key] " " $7; int8_ratio[key] = int8_ratio[key] " " $5 / $7 }
}
END {
    for (i = 1; i <= count; i++) {
        key = keys[i]
        print key, median(our[key]), median(their[key]), median(ratio[key]), median(other[key]), \
            median(int8_ratio[key]), turns[key]
    }
}' "$samples" | tee "$output" | awk -F '\t' -v engine="ONNX Runtime $version" '
function cell(row, column, ms, ratio) {
    if (ms == "-") return
    if (!(row in seen)) { seen[row] = 1; rows[++count] = row }
    text[row, column] = sprintf(ratio == "-" ? "%.4g" : "%.4g (%.3f)", ms, ratio)
}
NR > 1 {
    column = "threads " $2 ", batch " $3
    if (!(column in known)) { known[column] = 1; columns[++last] = column }
    if ($4 == "f32") cell($1 ", " engine " f32", column, $6, "-")
    if ($4 == "int8") cell($1 ", " engine " int8", column, $8, $8 == "-" || $6 == "-" ? "-" : $8 / $6)
    cell($1 ", " $4, column, $5, $7)
}
END {
    line = "| ms a run (ratio to ONNX Runtime f32) |"
    rule = "|---|"
    for (i = 1; i <= last; i++) { line = line " " columns[i] " |"; rule = rule "---:|" }
    print line "\n" rule
    for (r = 1; r <= count; r++) {
        line = "| " rows[r] " |"
        for (i = 1; i <= last; i++) line = line " " text[rows[r], columns[i]] " |"
        print line
    }
}'
