# tests.cmake - install the library once, then build and run a program against it in each of the ways there are.
set(CONSUMER_PREFIX ${CMAKE_CURRENT_BINARY_DIR}/prefix)
set(CONSUMER_ENVIRONMENT SOURCE=${PROJECT_SOURCE_DIR} PREFIX=${CONSUMER_PREFIX}
    BUILD=${PROJECT_BINARY_DIR} WORK=${CMAKE_CURRENT_BINARY_DIR}/consumers
    CC=${CMAKE_C_COMPILER} JPEG=${RESNET_JPEG})

add_test(NAME install COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${CONSUMER_PREFIX})
set_tests_properties(install PROPERTIES FIXTURES_SETUP installed)

function(add_consumer way)
  add_test(NAME consumer.${way} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/consumers/run.sh ${way})
  set_tests_properties(consumer.${way} PROPERTIES FIXTURES_REQUIRED installed SKIP_RETURN_CODE 77
                       ENVIRONMENT "${CONSUMER_ENVIRONMENT}")
endfunction()
foreach(way static_c static_cxx shared pkg_config find_package find_package_static add_subdirectory by_hand
        by_hand_aarch64 program deb)
  add_consumer(${way})
endforeach()
