# fuzz.cmake - clang's marks for libFuzzer, and its sanitizers: cmake -C tools/presets/fuzz.cmake -S . -B build-fuzz
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(RESNET_SANITIZE fuzzer-no-link,address,undefined CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
