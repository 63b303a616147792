# bench_scaling.sh - time and memory as work grows: in depth, batch, input size and threads, one at a time.
#
#   sh tools/bench_scaling.sh [--quick] [-o FILE.tsv]
#
# Starts from ResNet-50, one image of 224 x 224, two threads, in f32 and in int8. Prints a line for each measurement;
# tools/plot.py draws them. --quick tries whether everything works.
set -eu
program=$(cd "$(dirname "$0")/.." && pwd)/build/resnet
output=/dev/null seconds=2 precisions="f32 int8"
depths="18 34 50 101 152" batches="1 2 4 8 16 32 64" sizes="64 128 224 256 384 512 768 1024" threads="1 2 4 8 16 32 64"
figures="gops median_ms images_per_second model_mb session_mb peak_rss_mb"

while [ $# -gt 0 ]; do
    case $1 in
    --quick) seconds=0 depths="18 34" batches="1 2" sizes="64 128" threads="1 4" ;;
    -o) output=$2 && shift ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
[ -x "$program" ] || { echo "build the program first: cmake -S . -B build && cmake --build build" >&2 && exit 4; }

# measure GROWS VALUE PRECISION OPTION...: a line of the table; of an option that is given twice, the last counts.
measure() {
    grows=$1 value=$2 precision=$3
    shift 3
    echo "$precision: $grows $value" >&2
    "$program" bench --arch resnet50 --batch 1 --size 224 --threads 2 --precision "$precision" --seconds "$seconds" \
        --json "$@" | tr ',{}' '[\n*]' | awk -F : -v OFS='\t' -v grows="$grows" -v value="$value" \
        -v precision="$precision" -v names="$figures" '
        { figure[$1] = $2 }
        END {
            line = grows OFS value OFS precision
            for (i = 1; i <= split(names, name, " "); i++) line = line OFS figure["\"" name[i] "\""]
            print line
        }'
}

{
    printf 'grows\tvalue\tprecision\t%s\n' "$(echo "$figures" | tr ' ' '\t')"
    for precision in $precisions; do
        for value in $depths; do measure depth "$value" "$precision" --arch "resnet$value"; done
        for value in $batches; do measure batch "$value" "$precision" --batch "$value"; done
        for value in $sizes; do measure size "$value" "$precision" --size "$value"; done
        for value in $threads; do measure threads "$value" "$precision" --threads "$value"; done
    done
} | tee "$output"
