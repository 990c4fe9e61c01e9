/* The conformance suite against a real etcd: a program of its own, for it takes long. */
#define TEST_KINDS "etcd"
#include "store/store_conformance_test.c"
