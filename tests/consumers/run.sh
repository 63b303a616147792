# run.sh - build a program against the library in one of the ways there are, or take ours, and run it: sh run.sh WAY
#
# The environment says where things are: SOURCE (the repository), PREFIX (an installed tree), BUILD (where it was built),
# WORK (a folder to build in), CC, and CXX if not c++, JPEG (what decodes them). Exits with 77, and a line that says why,
# where a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
way=$1 work=$WORK/$1 cxx=${CXX:-c++}
cc="$CC -std=c99 -Wall -Wextra -Wpedantic -Werror"
libraries="-lm -lpthread" depends='libc6 (>= [0-9.]*)'
[ "$JPEG" != turbo ] || libraries="$libraries -ljpeg" depends="$depends, libjpeg62-turbo (>= [0-9.:]*)"

needs() {
    command -v "${1%% *}" >/dev/null || { echo "skipped: no $1" && exit 77; }
}

# with_cmake OPTION...: configure and build the project of this folder.
with_cmake() {
    cmake -S "$here" -B . -DCMAKE_C_COMPILER="$CC" "$@"
    cmake --build . --parallel
}

# by_hand HEADING OPTION...: run the README's lines where the sources are, the compiler with these options besides.
by_hand() {
    cp -r "$SOURCE/include" "$SOURCE/src" .
    sh "$SOURCE/tools/readme_block.sh" "$1" sh >by_hand.sh
    shift
    options=$*
    # shellcheck disable=SC2086 # options
    cc() { $CC $options "$@"; }
    . ./by_hand.sh
    cc -Iinclude "$here/consumer.c" libresnet.a -lm -lpthread -o consumer
}

consumer=./consumer
rm -rf "$work"
mkdir -p "$work"
cd "$work"
# shellcheck disable=SC2086 # libraries
case $way in
static_c) $cc -I"$PREFIX/include" "$here/consumer.c" "$PREFIX/lib/libresnet.a" $libraries -o consumer ;;
static_cxx)
    needs "$cxx"
    $cxx -std=c++11 -Wall -Wextra -Wpedantic -Werror -I"$PREFIX/include" "$here/consumer.cpp" "$PREFIX/lib/libresnet.a" \
        $libraries -o consumer
    ;;
shared) $cc -I"$PREFIX/include" "$here/consumer.c" -L"$PREFIX/lib" -lresnet -Wl,-rpath,"$PREFIX/lib" -o consumer ;;
pkg_config)
    needs pkg-config
    export PKG_CONFIG_PATH="$PREFIX/lib/pkgconfig" LD_LIBRARY_PATH="$PREFIX/lib"
    # shellcheck disable=SC2046 # options
    $cc "$here/consumer.c" $(pkg-config --cflags --libs "resnet >= 0.1") -o consumer
    ;;
find_package) with_cmake -DCMAKE_PREFIX_PATH="$PREFIX" ;;
find_package_static) with_cmake -DCMAKE_PREFIX_PATH="$PREFIX" -DCOMPONENT=static ;;
add_subdirectory) with_cmake -DSOURCE="$SOURCE" ;;
by_hand)
    [ "$(uname -m)" = x86_64 ] || { echo "skipped: these are the lines for x86-64" && exit 77; }
    by_hand "#### By hand"
    ;;
by_hand_aarch64)
    CC=aarch64-linux-gnu-gcc
    needs "$CC"
    needs qemu-aarch64
    by_hand "#### By hand for AArch64" -static -idirafter /usr/include # where stb is
    consumer="qemu-aarch64 ./consumer"
    ;;
program)
    [ -x "$PREFIX/bin/resnet" ] || { echo "skipped: no program was built, for lack of stb_image" && exit 77; }
    consumer="$PREFIX/bin/resnet classify --top 1 --model" # once with the model named, once with the installed one
    (cd / && "$PREFIX/bin/resnet" classify "$SOURCE/models/samples/golf_ball.png" | grep "golf ball")
    sh "$PREFIX/share/resnet/tools/get_model.sh" --help | grep -x resnet50-v2
    if python3 -c "import numpy" 2>/dev/null; then
        python3 -B "$PREFIX/share/resnet/tools/convert.py" --help | grep "^usage"
    fi
    ;;
deb)
    needs dpkg-shlibdeps
    needs file # cpack asks it which files have dependencies
    cpack -G DEB --config "$BUILD/CPackConfig.cmake" -B .
    dpkg-deb -f ./*.deb Depends | grep -x "$depends" || { dpkg-deb -f ./*.deb Depends && exit 1; }
    dpkg-deb -x ./*.deb .
    consumer="usr/bin/resnet classify --top 1 --model"
    ;;
*) echo "there is no way called $way" >&2 && exit 2 ;;
esac
answer=$($consumer "$SOURCE/models/default.resnet" "$SOURCE/models/samples/golf_ball.png")
echo "$answer" | grep "golf ball$"
