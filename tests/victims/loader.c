/* SPDX-License-Identifier: MIT */
/* A library is loaded, used and unloaded over and over, now here and now there: words that were hooked are
 * gone, and something else lies in their place. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "victim.h"

static char path[PATH_MAX];

static void *body(void *argument)
{
	const struct timespec pause = {.tv_nsec = 20000000};

	(void)argument;
	for (int round = 1;; round++) {
		void *library = dlopen(path, round & 1 ? RTLD_NOW : RTLD_LAZY);
		int (*work)(int) = library ? (int (*)(int))dlsym(library, "plugin_work") : NULL;
		struct link_map_head {
			char *base;
		} *head = library;
		char *base = head ? head->base : NULL;
		volatile char *instead;

		if (!work) {
			victim_break("the library could not be loaded: %s", dlerror());
			return NULL;
		}
		for (int i = 0; i < 50; i++) {
			if (work(round * 50 + i))
				victim_break("the library's work went wrong");
			if (i % 10 == 0)
				nanosleep(&pause, NULL);
		}
		(void)dlclose(library);
		/* In every other round its place is taken by memory of ours, which nobody may write to. */
		instead = mmap(base, 5 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (instead != MAP_FAILED) {
			nanosleep(&pause, NULL);
			for (int i = 0; i < 5 * 4096; i++)
				if (instead[i])
					victim_break("something was written where the library was");
			if (round & 2)
				(void)munmap((void *)instead, 5 * 4096);
		}
		victim_round();
	}
}

int victim_start(void)
{
	Dl_info self;
	char *slash;

	if (!dladdr((void *)victim_start, &self))
		return ENOENT;
	(void)snprintf(path, sizeof(path) - 20, "%s", self.dli_fname);
	slash = strrchr(path, '/');
	if (!slash)
		return ENOENT;
	(void)strcpy(slash + 1, "victim_plugin.so");
	return victim_thread(body, NULL);
}
