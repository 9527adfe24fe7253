/* SPDX-License-Identifier: MIT */
#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

/* What nobody guesses, and what fits into the memory of a connection several times. */
enum { TOKEN_MIN = 16, TOKEN_MAX = 1024 };

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
static const char alphabet[] = LETTERS "+/";

/* Read through what was opened, so that it is that file which was looked at. */
int serve_token_read(const char *path, char **ret, struct pl_error *err)
{
	pl_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char text[TOKEN_MAX + 2];
	struct stat file;
	ssize_t size;
	size_t length;

	if (fd < 0 || fstat(fd, &file) < 0)
		return pl_fail(err, -errno, "--listen-token %s: %s", path, strerror(errno));
	if (!S_ISREG(file.st_mode))
		return pl_fail(err, -EINVAL, "--listen-token %s: not a regular file", path);
	if ((file.st_uid != geteuid() && file.st_uid != 0) || file.st_mode & (S_IRWXO | S_IWGRP))
		return pl_fail(err, -EPERM,
			"--listen-token %s: others may read or change it: 'chmod 600' makes it its owner's alone, who must be "
			"this user or root",
			path);
	size = read(fd, text, sizeof(text) - 1);
	if (size < 0)
		return pl_fail(err, -errno, "--listen-token %s: %s", path, strerror(errno));
	text[size] = '\0';
	length = strcspn(text, "\r\n");
	text[length] = '\0';
	if (length < TOKEN_MIN || length > TOKEN_MAX || strspn(text, LETTERS "-._~+/=") < length)
		return pl_fail(err, -EINVAL,
			"--listen-token %s: its first line is no token: %d to %d letters, digits and -._~+/=, as "
			"'openssl rand -hex 32' makes them",
			path, TOKEN_MIN, TOKEN_MAX);
	*ret = strdup(text);
	return *ret ? 0 : pl_fail(err, -ENOMEM, "out of memory");
}

/* All of what was given is gone through, whatever it is. */
static bool is_equal(const char *token, const char *given, size_t length)
{
	size_t wanted = strlen(token);
	volatile unsigned char differs = length != wanted;

	for (size_t i = 0; i < length; i++)
		differs = (unsigned char)(differs | (unsigned char)(given[i] ^ token[i % wanted]));
	return !differs;
}

/* The bytes that a text of base64 stands for, as far as it is one; `bytes` is as long as the text. */
static size_t decode(const char *text, size_t length, char *bytes)
{
	uint32_t bits = 0;
	int count = 0;
	size_t size = 0;

	for (size_t i = 0; i < length && text[i] != '='; i++) {
		const char *at = memchr(alphabet, text[i], sizeof(alphabet) - 1);

		if (!at)
			return 0;
		bits = bits << 6 | (uint32_t)(at - alphabet);
		count += 6;
		if (count >= 8) {
			count -= 8;
			bytes[size++] = (char)(bits >> count & 0xff);
		}
	}
	return size;
}

static bool is_password(const char *token, const char *text)
{
	size_t length = strlen(text), size;
	pl_autofree char *bytes = malloc(length + 1);
	const char *colon;

	if (!bytes)
		return false;
	size = decode(text, length, bytes);
	colon = memchr(bytes, ':', size);
	return colon && is_equal(token, colon + 1, size - (size_t)(colon + 1 - bytes));
}

bool serve_token_given(const char *token, const char *authorization)
{
	static const char bearer[] = "Bearer ", basic[] = "Basic ";

	if (!authorization)
		return false;
	if (strncasecmp(authorization, bearer, strlen(bearer)) == 0) {
		const char *given = authorization + strlen(bearer);

		return is_equal(token, given, strlen(given));
	}
	if (strncasecmp(authorization, basic, strlen(basic)) == 0)
		return is_password(token, authorization + strlen(basic));
	return false;
}
