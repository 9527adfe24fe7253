/* SPDX-License-Identifier: MIT */
#include "pyleak/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/text.h"

static int __attribute__((format(printf, 4, 0)))
fail(struct pl_error *err, int code, unsigned int remedies, const char *format, va_list arguments)
{
	if (!err || err->code)
		return code;
	err->code = code;
	err->remedies = remedies;
	(void)vsnprintf(err->text, sizeof(err->text), format, arguments);
	/* Names in it may come from the tracee: none of them may start a line of its own or steer a terminal. */
	pl_text_blank(err->text, strlen(err->text));
	return code;
}

int pl_fail(struct pl_error *err, int code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)fail(err, code, 0, format, arguments);
	va_end(arguments);
	return code;
}

int pl_fail_remedied(struct pl_error *err, int code, unsigned int remedies, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)fail(err, code, remedies, format, arguments);
	va_end(arguments);
	return code;
}
