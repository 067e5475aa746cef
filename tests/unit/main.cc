// The entry point of nearkey_unit_tests: doctest's own, which takes its command line.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
