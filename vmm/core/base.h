/* base.h: what every file may use.  No project types, no state. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define must_check		__attribute__((warn_unused_result))
#define printf_like(f, a)	__attribute__((format(printf, f, a)))

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) \
	((type *)((char *)(p) - offsetof(type, member)))
#define MIN(a, b)	((a) < (b) ? (a) : (b))
#define MAX(a, b)	((a) > (b) ? (a) : (b))
/* a must be a power of two. */
#define ALIGN_DOWN(x, a)	((x) & ~((__typeof__(x))(a) - 1))
#define ALIGN_UP(x, a)		ALIGN_DOWN((x) + (a) - 1, a)

#define KIB	(1ULL << 10)
#define MIB	(1ULL << 20)
#define GIB	(1ULL << 30)

/* Overflow-checked arithmetic: true means "does not fit". */
#define add_overflows(a, b, r)	__builtin_add_overflow((a), (b), (r))
#define mul_overflows(a, b, r)	__builtin_mul_overflow((a), (b), (r))

/* For memory that another thread or the guest may change. */
#define load_once(p)		__atomic_load_n((p), __ATOMIC_RELAXED)
#define store_once(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define load_acquire(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define full_barrier()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
/* What was read before this is not read again after it. */
#define compiler_barrier()	__atomic_signal_fence(__ATOMIC_SEQ_CST)

/*
 * BUG_ON: a promise this program made to itself was broken.  Never for
 * anything a guest, a file or a user can cause.  Always compiled in.
 */
_Noreturn void bug(const char *file, int line, const char *what);
#define BUG_ON(cond)	((cond) ? bug(__FILE__, __LINE__, #cond) : (void)0)

struct stat;
bool same_file(const struct stat *, const struct stat *);
/* One that nobody but this user can write to, and no link. */
bool is_own_directory(const char *path);
/* Whether another file has the name by now, by which fd was opened.  If the host does not say: no. */
bool was_replaced(int fd, const char *path);

/* What a user or a guest wrote does not command the terminal: '?' for each such byte. */
void mask_controls(char *text);
