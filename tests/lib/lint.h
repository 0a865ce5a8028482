/* lint.h: for scripts/lint, in front of every file: what analyzers cannot see in the file they look at. */
#pragma once
#include "vmm/core/err.h"
#ifdef __cppcheck__
#define json_array_foreach(a, i, v) \
	for (i = 0; i < json_array_size(a) && (v = json_array_get(a, i)); i++)
#define json_object_foreach(o, k, v) \
	for (k = json_next(o); k && (v = json_value(k)); k = json_next(o))
#else
/* An error has a code: who returns one did not succeed. */
#define negative_(call) \
	({ \
		int code_ = (call); \
		if (code_ >= 0) \
			__builtin_unreachable(); \
		code_; \
	})
#define err_set(...)	negative_((err_set)(__VA_ARGS__))
#define err_prefix(...)	negative_((err_prefix)(__VA_ARGS__))
#endif
