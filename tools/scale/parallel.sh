# parallel.sh - classify a list of images under GNU parallel, lose a worker, and answer every image exactly once.
#
# sh tools/scale/parallel.sh [LIST [MODEL]]: a file of paths, a line each (2,000 links to the samples), and a model file (the
# default one). The call of `parallel` is the recipe; the rest makes the list, kills a worker and checks the answers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/../packages.sh" parallel python3
scratch=$(mktemp -d) engine=''
stop_all() {
    set +e # it has ended, or never began
    trap '' INT TERM
    kill "$engine" && kill "$engine" # at the second signal it ends its workers
    wait
    rm -rf "$scratch"
} 2>/dev/null
trap stop_all EXIT
trap 'exit 130' INT TERM
mkdir "$scratch/parts"

export program="${RESNET_PROGRAM:-$here/../../build/resnet}" model="${2:-$here/../../models/default.resnet}" shards=8
export list="${1:-$("$here/recipe.py" list "$scratch/input" 2000)}" parts="$scratch/parts"
shard_size=$(($(wc -l <"$list") / shards))

# Exit code 1 says that some images are broken: they have records like the others, and another try would not mend them.
# shellcheck disable=SC2016 # for the workers' shell
seq $shards | parallel --jobs 2 --retries 3 --will-cite '
    "$program" classify --model "$model" --files-from "$list" --json --threads 1 \
        --shard {}/"$shards" --resume "$parts"/{}.jsonl 2>>"$parts".log
    [ $? -le 1 ]' &
engine=$!

victim=$("$here/recipe.py" catch $((shard_size / 3)) "$parts/2.jsonl")
kill -KILL "$victim"
echo "worker of shard 2 killed at image $(wc -l <"$parts/2.jsonl") of $shard_size"
wait "$engine" || { cat "$parts.log" >&2 && exit 1; }
echo "parallel started it again: $(wc -l <"$parts/2.jsonl") of $shard_size"
"$here/recipe.py" check "$list" "$model" "$parts"/*.jsonl
