/* version.c - the version of the library that is linked. */
#include "resnet.h"

#define TEXT(x)                      #x
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *resnet_version(void) {
    return VERSION(RESNET_VERSION_MAJOR, RESNET_VERSION_MINOR, RESNET_VERSION_PATCH);
}
