# asan.cmake - the address and undefined-behaviour sanitizers: cmake -C tools/presets/asan.cmake -S . -B build-asan
set(RESNET_SANITIZE address,undefined CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
