/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "pyleak/options.h"

/* Where one of the three is closed, the next file that is opened takes its number, and what is printed would go there:
 * into the guardian's pipe, or the memory of the process. Opened for the wrong direction, so that using it is an error
 * as it was before. */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
			abort();
}

int main(int argc, char **argv)
{
	static int (*const commands[PL_COMMAND_COUNT])(const struct pl_options *) = {
		[PL_COMMAND_PS] = pl_command_ps,
		[PL_COMMAND_ATTACH] = pl_command_attach,
		[PL_COMMAND_RUN] = pl_command_run,
		[PL_COMMAND_DIFF] = pl_command_diff,
		[PL_COMMAND_WHY] = pl_command_why,
		[PL_COMMAND_DETACH] = pl_command_detach,
		[PL_COMMAND_HEAP] = pl_command_heap,
		[PL_COMMAND_HOLDERS] = pl_command_holders,
		[PL_COMMAND_REPORT] = pl_command_report,
		[PL_COMMAND_DOCTOR] = pl_command_doctor,
	};
	struct pl_options options;
	int status;

	fill_standard_descriptors();
	status = pl_options_parse(argc, argv, &options);

	if (status < 0)
		status = commands[options.command](&options);
	pl_options_free(&options);
	return status;
}
