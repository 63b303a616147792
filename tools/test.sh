# test.sh - install what the tests need, build, and run them all: sh tools/test.sh [CMAKE OPTION...]
set -eu
cd "$(dirname "$0")/.."
sh tools/packages.sh gcc g++ libc6-dev cmake make libstb-dev libcmocka-dev python3 python3-numpy python3-h5py curl
cmake -S . -B build -DBUILD_TESTING=ON "$@" >/dev/null
cmake --build build --parallel "$(nproc)"
ctest --test-dir build --output-on-failure --parallel "$(nproc)"
