/* SPDX-License-Identifier: MIT */
/* A program that loads libpython when it has run for a while, as a web server does with its plugin for Python.
 *
 *     embedded LIBPYTHON PROGRAM
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* From before libpython was there: its vector of thread-local blocks is too short for that. */
static void *allocate_on(void *unused)
{
	for (;;) {
		free(malloc(300));
		usleep(1000);
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *library;

	if (argc != 3 || pthread_create(&thread, NULL, allocate_on, NULL) != 0)
		return 2;
	library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 2;
	}

	void (*initialize)(void) = (void (*)(void))dlsym(library, "Py_Initialize");
	int (*run)(const char *) = (int (*)(const char *))dlsym(library, "PyRun_SimpleString");
	int (*finalize)(void) = (int (*)(void))dlsym(library, "Py_FinalizeEx");

	initialize();
	if (run(argv[2]) != 0 || finalize() != 0)
		return 1;
	(void)dlclose(library);
	for (size_t i = 0; i < 1000; i++) {
		void *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		free(malloc(100 + i));
		(void)munmap(pages, 8192);
	}
	return 0;
}
