# bench_newcomer.sh - walk a newcomer's path in a fresh clone, and time it: bench_newcomer.sh CHECKPOINT.pth PHOTO.jpg
#
# Every command is the README's: each is taken out of the clone's README and run there as it stands. CHECKPOINT, of a
# network of ImageNet's classes, and PHOTO get the names that the README has for them.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
checkpoint=$(realpath "$1") photo=$(realpath "$2")
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone -q "$source" "$clone"
cd "$clone"
ln -s "$checkpoint" mine.pth
ln -s models/imagenet_classes.txt names.txt
ln -s "$photo" photo.jpg

# step NAME: run what stands on the input, and say how long it took
step() {
    cat >step.sh
    start=$(date +%s%N)
    sh -e step.sh >log 2>&1 || { cat log && exit 1; }
    printf '%8.1f s  %-28s %s\n' "$(echo "$start $(date +%s%N)" | awk '{ print ($2 - $1) / 1e9 }')" "$1" \
        "$(grep . log | tail -n "${2:-1}" | head -n 1)"
}
block() {
    sh tools/readme_block.sh "$@"
}

block "## See it work" sh 1 | step "the first answer" 7
block "## See it work" sh 2 | step "green tests" 2
{ block "## Use your own network" sh 2 && echo "build/resnet classify --model mine.resnet photo.jpg"; } |
    step "own checkpoint to answer" 5
block "## Use the library" c >program.c
{ block "## Use the library" sh && echo "./program models/default.resnet models/samples/church.png"; } | step "a program in C"
block "### Python" python >program.py
block "### Python" sh | step "Python without pip" 2
