/* SPDX-License-Identifier: MIT */
/* A tracer of references (PyRefTracer_SetTracer(), 3.13 and later) that waits for a byte in the middle of one deallocation. */
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum { DESTROYED = 1 }; /* PyRefTracer_DESTROY */

API extern void *references_awaited;
void *references_awaited;

API int references_trace(void *object, int event, void *data);
int references_trace(void *object, int event, void *data)
{
	char byte;

	(void)data;
	if (event != DESTROYED || object != references_awaited)
		return 0;
	references_awaited = 0;
	return write(STDOUT_FILENO, "asleep\n", 7) == 7 && read(STDIN_FILENO, &byte, 1) == 1 ? 0 : -1;
}
