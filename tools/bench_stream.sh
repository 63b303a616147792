#!/bin/sh
# Streams against what decoding and the network alone allow: bench_stream.sh FOLDER [OPTION...] makes 2,000 links to the
# photographs in FOLDER and runs resnet bench --files-from over them, with these options (--model FILE, --precision NAME).
set -eu
folder=$1
shift
program=${RESNET_PROGRAM:-$(dirname "$0")/../build/resnet}
links=$(mktemp -d)
trap 'rm -r "$links"' EXIT
find "$(realpath "$folder")" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.bmp' \) | sort >"$links/photographs"
count=0
while [ $count -lt 2000 ]; do
    while read -r photograph && [ $count -lt 2000 ]; do
        ln -s "$photograph" "$links/$count-$(basename "$photograph")"
        echo "$links/$count-$(basename "$photograph")"
        count=$((count + 1))
    done <"$links/photographs"
    [ $count -gt 0 ] || { echo "$folder: no photographs" >&2; exit 1; }
done >"$links/list"
"$program" bench --files-from "$links/list" "$@"
