/* SPDX-License-Identifier: MIT */
/* A C++ extension: its nodes come from operator new of the C++ library, which calls malloc. */
#include <cstddef>
#include <map>
#include <new>

#define VICTIM_API __attribute__((visibility("default")))

static std::map<int, int> *kept;

extern "C" VICTIM_API void maps_keep(int count)
{
	kept = new std::map<int, int>;
	for (int i = 0; i < count; i++)
		(*kept)[i] = i;
}

extern "C" VICTIM_API void maps_drop(void)
{
	delete kept;
	kept = NULL;
}

/* What there is no memory for: 1 if that is an exception, as it must be. */
extern "C" VICTIM_API int maps_too_large(size_t size)
{
	try {
		char *volatile block = new char[size];

		delete[] block;
		return 0;
	} catch (const std::bad_alloc &) {
		return 1;
	}
}
