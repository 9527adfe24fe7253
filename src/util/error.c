/* SPDX-License-Identifier: MIT */
#include "pyleak/error.h"

#include <stdarg.h>
#include <stdio.h>

int pl_fail(struct pl_error *err, int code, const char *format, ...)
{
	va_list arguments;
	char *byte;

	if (!err || err->code)
		return code;
	err->code = code;
	va_start(arguments, format);
	(void)vsnprintf(err->text, sizeof(err->text), format, arguments);
	va_end(arguments);
	/* Names in it may come from the tracee: none of them may start a line of its own or steer a terminal. */
	for (byte = err->text; *byte; byte++) {
		if ((unsigned char)*byte < ' ' || *byte == 0x7f)
			*byte = '?';
	}
	return code;
}
