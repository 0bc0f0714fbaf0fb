/*
 * memcheck.h
 *		Valgrind's requests of PostgreSQL's memory contexts and buffers, for
 *		the address sanitizer.
 *
 * The sanitizer knows malloc() and the stack, but not what palloc() cuts out
 * of a block.  A server built with USE_VALGRIND tells Valgrind; this header in
 * the place of Valgrind's own lets the sanitizer hear it.  What is not defined
 * but accessible does not interest the sanitizer.
 */
#ifndef SANITIZER_MEMCHECK_H
#define SANITIZER_MEMCHECK_H

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_NOACCESS(addr, size) \
	ASAN_POISON_MEMORY_REGION(addr, size)
#define VALGRIND_MAKE_MEM_DEFINED(addr, size) \
	ASAN_UNPOISON_MEMORY_REGION(addr, size)
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) \
	ASAN_UNPOISON_MEMORY_REGION(addr, size)
#define VALGRIND_MEMPOOL_ALLOC(context, addr, size) \
	ASAN_UNPOISON_MEMORY_REGION(addr, size)
#define VALGRIND_MEMPOOL_CHANGE(context, optr, nptr, size) \
	ASAN_UNPOISON_MEMORY_REGION(nptr, size)

/* pfree() has wiped the chunk and made it inaccessible before. */
#define VALGRIND_MEMPOOL_FREE(context, addr) ((void) 0)
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed) ((void) 0)
#define VALGRIND_DESTROY_MEMPOOL(context) ((void) 0)
#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size) ((void) 0)

#endif							/* SANITIZER_MEMCHECK_H */
