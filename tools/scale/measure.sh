# measure.sh - measure what the planning page needs: sh tools/scale/measure.sh MODEL.resnet...
#
# Of each model and the default one: the network alone on a core; workers, one of one thread for each core, over photographs
# in ../shared/data; the memory and the start of a worker. Then, with the last model, how long each photograph takes.
# Prints the table and writes it to tools/measured/scale.tsv, the times to image_times.tsv, and what simulate.py makes of
# them to simulation.tsv and .svg. Files come from the page cache.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../.. program=$here/../../build/resnet measured=$here/../measured
data=$root/../shared/data cores=$(nproc)
[ -x "$program" ] || { echo "build the program first: cmake -S . -B build && cmake --build build" >&2 && exit 4; }
[ -d "$data/photos" ] || { echo "there are no photographs in $data" >&2 && exit 4; }
python=python3 # one that has numpy
"$python" -c 'import numpy' 2>/dev/null || python=/usr/bin/python3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for set in val photos; do ls "$data/$set"/*.jpg >"$scratch/$set"; done

seconds_of() {
    start=$(date +%s%N)
    "$@" >"$scratch/out" 2>&1
    awk "BEGIN { print ($(date +%s%N) - $start) / 1e9 }"
}

median() { sort -n | sed -n "$((($1 + 1) / 2))p"; }

work_all_cores() {
    for i in $(seq "$cores"); do
        "$program" classify --model "$model" --files-from "$1" --json --threads 1 --shard "$i/$cores" &
    done
    wait
}

memory_of_worker() {
    "$python" - "$program" classify --model "$model" --files-from "$scratch/photos" --json --threads 1 <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
END
}

bench_figure() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"]*\).*/\1/p" "$scratch/bench"; }

measure_model() {
    "$program" bench --model "$model" --threads 1 --batch 8 --json >"$scratch/bench"
    name="$(basename "$model" .resnet)" # the architecture, but for the default model, which is known by its file
    [ "$name" = default ] || name=$(bench_figure arch)
    name="$name $(bench_figure precision)"
    printf '%s\t%s\t%s\n' "$name" network "$(bench_figure images_per_second)"
    for set in val photos; do
        seconds=$(seconds_of work_all_cores "$scratch/$set")
        printf '%s\t%s\t%s\n' "$name" "$set" "$(awk "BEGIN { print $(wc -l <"$scratch/$set") / $seconds / $cores }")"
    done
    printf '%s\t%s\t%s\n' "$name" memory_mb "$(memory_of_worker)"
    printf '%s\t%s\t%s\n' "$name" start_s "$(for _ in 1 2 3 4 5; do
        seconds_of "$program" classify --model "$model" --threads 1 "$root/models/samples/church.png"
    done | median 5)"
}

{
    printf 'of\tfigure\tvalue\n'
    printf 'machine\tcores\t%s\n' "$cores"
    for model in "$root/models/default.resnet" "$@"; do measure_model; done
    "$python" "$here/image_times.py" "$model" "$measured/image_times.tsv" "$data/val" "$data/photos"
} >"$scratch/table"
mv "$scratch/table" "$measured/scale.tsv"
cat "$measured/scale.tsv"
"$python" "$here/simulate.py" -o "$measured/simulation.tsv" >"$scratch/out"
"$python" "$here/../plot.py" "$measured/simulation.tsv" -o "$measured/simulation.svg"
