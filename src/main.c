/* SPDX-License-Identifier: MIT */
#include "pyleak/options.h"

int main(int argc, char **argv)
{
	static int (*const commands[PL_COMMAND_COUNT])(const struct pl_options *) = {
		[PL_COMMAND_PS] = pl_command_ps,
		[PL_COMMAND_ATTACH] = pl_command_attach,
		[PL_COMMAND_DIFF] = pl_command_diff,
		[PL_COMMAND_DETACH] = pl_command_detach,
	};
	struct pl_options options;
	int status = pl_options_parse(argc, argv, &options);

	if (status < 0)
		status = commands[options.command](&options);
	pl_options_free(&options);
	return status;
}
