#!/usr/bin/env bash
# coverage.sh - which lines and branches of the library its tests in C reach: coverage.sh [REGEX] builds them in
# build-coverage with gcov's counters, runs those that REGEX names (all of them), and prints a line for each file of src.
# Needs gcc.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build-coverage

# Without inlining, so that a branch is counted once, not once for each place that it was copied to.
cmake -S . -B "$folder" -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug \
    "-DCMAKE_C_FLAGS=--coverage -O1 -fno-inline" >/dev/null
cmake --build "$folder" --target help | sed -n 's/^\.\.\. \(test_[a-z0-9_]*\|replay_[a-z]*\|fuzz_seeds\)$/\1/p' |
    xargs cmake --build "$folder" -j "$(nproc)" --target >/dev/null
find "$folder" -name '*.gcda' -delete
RESNET_TEST_QUICK=1 ctest --test-dir "$folder" -j "$(nproc)" -L library -R "${1:-.}" | tail -n 12

# What gcov says of each file, as "FILE LINES REACHED% BRANCHES TAKEN%".
counts() {
    find "$folder/CMakeFiles/resnet_objects.dir" -name '*.gcda' -print0 | xargs -0 gcov -b -n 2>/dev/null |
        awk -F"'" '
            /^File / {file = $2; sub(/.*\/src\//, "src/", file)}
            /^Lines executed:/ {split($0, f, /[:% ]+/); lines = f[5]; reached = f[3]}
            /^No branches/ && file ~ /^src\// {tell(0, 100)}
            /^Taken at least once:/ && file ~ /^src\// {split($0, f, /[:% ]+/); tell(f[7], f[5])}
            function tell(branches, taken) {
                print file, lines, reached, branches, taken
                file = ""
            }' | sort -k1,1 -k3,3gr | sort -u -s -k1,1 # a header is in many files: the one that uses most of it
}

# Kernels of instruction sets that this CPU has not got: nothing of what they include has run.
absent() {
    for source in src/kernels/kernels_*.c; do
        gcov -n "$folder/CMakeFiles/resnet_objects.dir/$source.gcda" 2>/dev/null |
            grep '^Lines executed:' | grep -qv ':0\.00%' || printf ' %s' "${source##*/}"
    done
}

counts | awk -v absent="$(absent)" '
    BEGIN {printf "\n%-34s %8s %8s %9s %9s\n", "file", "lines", "reached", "branches", "taken"}
    $1 !~ /kernels\// || $3 > 0 {
        printf "%-34s %8d %7.1f%% %9d %8.1f%%\n", $1, $2, $3, $4, $5
        lines += $2; reached += $2 * $3 / 100; branches += $4; taken += $4 * $5 / 100
    }
    END {
        printf "%-34s %8d %7.1f%% %9d %8.1f%%\n", "all", lines, 100 * reached / lines, branches, 100 * taken / branches
        print "not counted, since this CPU cannot run them:" (absent ? absent : " none")
    }'
