/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process_private.h"
#include "pyleak/cleanup.h"

pid_t pl_process_own_number(pid_t pid, pid_t tid)
{
	char status[PL_PROC_STATUS_BYTES], file[32];
	const char *ids, *end, *last;

	(void)snprintf(file, sizeof(file), "task/%d/status", (int)tid);
	if (pl_proc_read(pid, file, status, sizeof(status)) < 0)
		return 0;
	ids = pl_proc_field(status, "NSpid");
	if (!ids) /* before 4.1 */
		return tid;
	end = strchrnul(ids, '\n');
	last = end;
	while (last > ids && last[-1] != '\t' && last[-1] != ' ')
		last--;
	return (pid_t)strtol(last, NULL, 10);
}

int pl_process_name_of_thread(pid_t pid, pid_t tid, char ret[PL_PROCESS_THREAD_NAME])
{
	char name[PL_PROCESS_THREAD_NAME + 1], file[32];

	(void)snprintf(file, sizeof(file), "task/%d/comm", (int)tid);
	if (pl_proc_read(pid, file, name, sizeof(name)) < 0)
		return -ESRCH;
	name[strcspn(name, "\n")] = '\0';
	(void)snprintf(ret, PL_PROCESS_THREAD_NAME, "%.*s", PL_PROCESS_THREAD_NAME - 1, name);
	return 0;
}

int pl_process_thread_name(pid_t pid, pid_t own_tid, char ret[PL_PROCESS_THREAD_NAME])
{
	pl_autofree pid_t *tids = NULL;
	size_t count = 0;

	if (pl_process_own_number(pid, own_tid) == own_tid)
		return pl_process_name_of_thread(pid, own_tid, ret);
	if (pl_process_threads(pid, &tids, &count) < 0)
		return -ESRCH;
	for (size_t i = 0; i < count; i++)
		if (pl_process_own_number(pid, tids[i]) == own_tid)
			return pl_process_name_of_thread(pid, tids[i], ret);
	return -ESRCH;
}
