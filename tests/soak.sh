#!/usr/bin/env bash
# soak.sh - the long versions of the tests: soak.sh [SECONDS] builds what it needs in build-soak and runs, at the lowest
# priority, everything that takes longer than a change should wait for. SECONDS (600) is the time of each fuzzer, whose
# corpus stays in build-soak and grows from call to call.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
folder=build-soak
renice -n 19 $$ >/dev/null

cmake -S . -B "$folder/plain" >/dev/null
cmake --build "$folder/plain" -j "$(nproc)" --target soak resnet faults >/dev/null
"$folder/plain/tests/soak" 100000 2000 10000
"$folder/plain/tests/soak" denormals
RESNET_TEST_SOAK=1 RESNET_PROGRAM="$folder/plain/resnet" RESNET_FAULTS="$folder/plain/tests/libfaults.so" \
    python3 tests/test_faults.py
for python in python3 /usr/bin/python3; do # one that has numpy
    "$python" -c 'import numpy' 2>/dev/null || continue
    "$python" tests/test_convert_mutations.py --mutations 10000
    break
done

python3 tests/mutate.py --mutants 400 --least 93 # the others do the same as the original

# fuzz NAME SANITIZERS TARGET...
fuzz() {
    local build="$folder/$1"
    cmake -C tools/presets/fuzz.cmake "-DRESNET_SANITIZE=$2" -S . -B "$build" >/dev/null
    shift 2
    cmake --build "$build" -j "$(nproc)" --target fuzz_seeds "${@/#/fuzz_}" >/dev/null
    tests/fuzz/run.sh "$build" "$seconds" "$@"
}
fuzz asan address,undefined,float-cast-overflow model loader image guards preprocess lists
fuzz msan memory image guards
