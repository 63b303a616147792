# tsan.cmake - the thread sanitizer: cmake -C tools/presets/tsan.cmake -S . -B build-tsan
set(RESNET_SANITIZE thread CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
