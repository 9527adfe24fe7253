/* SPDX-License-Identifier: MIT */
/* The main thread ends alone: the process lives on with a zombie for a leader. */
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

VICTIM_API void victim_end_leader(void);

/* ctypes has let go of the GIL when this runs in the main thread; the raw call ends that thread only. */
void victim_end_leader(void)
{
	syscall(SYS_exit, 0);
}

int victim_start(void)
{
	return 0;
}
