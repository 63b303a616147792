#!/usr/bin/env bash
# coverage.sh - which lines and branches of the library the tests reach: coverage.sh [REGEX] builds in build-coverage
# with gcov's counters, runs the tests that REGEX names (all but those of the kernels, the slowest), and prints a line for
# each file of src. Needs gcc.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build-coverage
choice=(-E '^(kernels|amx|topology|convert|photographs|get_model|soak)')
[ $# -eq 0 ] || choice=(-R "$1")

cmake -S . -B "$folder" -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS=--coverage -O1" >/dev/null
cmake --build "$folder" -j "$(nproc)" >/dev/null
find "$folder" -name '*.gcda' -delete
RESNET_TEST_QUICK=1 ctest --test-dir "$folder" -j "$(nproc)" "${choice[@]}" | tail -n 4

printf '\n%-28s %8s %8s %9s %9s\n' file lines reached branches taken
find "$folder/CMakeFiles/resnet_objects.dir" -name '*.gcda' -print0 | xargs -0 gcov -b -n 2>/dev/null |
    awk -F"'" '
        /^File / {file = $2; sub(/.*\/src\//, "src/", file)}
        /^Lines executed:/ {split($0, f, /[:% ]+/); lines = f[5]; reached = f[3]}
        /^No branches/ && file ~ /^src\// {tell(0, 100)}
        /^Taken at least once:/ && file ~ /^src\// {split($0, f, /[:% ]+/); tell(f[7], f[5])}
        function tell(branches, taken) {
            printf "%-28s %8d %7.1f%% %9d %8.1f%%\n", file, lines, reached, branches, taken
            file = ""
        }' | sort -u
