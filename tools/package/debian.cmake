# debian.cmake - what Debian has in other places or forms than cmake --install; run by cpack before it packs.
set(share ${CPACK_TEMPORARY_DIRECTORY}/usr/share)
execute_process(COMMAND gzip -9n ${share}/man/man1/resnet.1 ${share}/man/man3/libresnet.3 COMMAND_ERROR_IS_FATAL ANY)
file(RENAME ${share}/zsh/site-functions ${share}/zsh/vendor-completions)
