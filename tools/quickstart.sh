# quickstart.sh - build everything and classify the sample pictures: sh tools/quickstart.sh
set -eu
cd "$(dirname "$0")/.."
sh tools/packages.sh gcc libc6-dev cmake make libstb-dev
cmake -S . -B build -DBUILD_TESTING=OFF >/dev/null
cmake --build build --parallel "$(nproc)"
build/resnet classify models/samples/*.png
