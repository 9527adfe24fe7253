/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/serve.h"
#include "pyleak/units.h"
#include "table.h"

/* "size, count or average", for a message. */
static void list_choices(const struct pl_option *option, enum pl_command command, char *text, size_t size)
{
	const char *names[16];
	size_t count = 0, used = 0;

	for (const struct pl_choice *choice = option->choices; choice->name; choice++)
		if (pl_choice_is_for(choice, command) && count < sizeof(names) / sizeof(names[0]))
			names[count++] = choice->name;
	text[0] = '\0';
	for (size_t i = 0; i < count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", i == 0 ? "" : i + 1 < count ? ", " : " or ",
			names[i]);
}

static int choose(const struct pl_option *option, enum pl_command command, const char *value, int *ret,
		  struct pl_error *err)
{
	char allowed[128];

	list_choices(option, command, allowed, sizeof(allowed));
	for (const struct pl_choice *choice = option->choices; choice->name; choice++) {
		if (strcmp(choice->name, value) != 0)
			continue;
		if (!pl_choice_is_for(choice, command))
			return pl_fail(err, -EINVAL, "--%s %s is not for 'pyleak %s': give %s", option->name,
				value, pl_command_table[command].name, allowed);
		*ret = choice->value;
		return 0;
	}
	return pl_fail(err, -EINVAL, "--%s: '%s' is not one of %s", option->name, value, allowed);
}

static int parse_time(const struct pl_option *option, const char *value, int64_t *ret_ns, struct pl_error *err)
{
	int r = pl_parse_duration(value, ret_ns);

	if (r == -ERANGE)
		return pl_fail(err, r, "--%s: '%s' is out of range: more than 0, at most 10 years", option->name,
			value);
	if (r < 0)
		return pl_fail(err, r, "--%s: '%s' is not a time: give a number and a unit, as 500ms, 10s, 2m, 1h or 1d",
			option->name, value);
	return 0;
}

/* A point in time after the start, which is one too. */
static int parse_moment(const struct pl_option *option, const char *value, int64_t *ret_ns, struct pl_error *err)
{
	if (value[0] && value[strspn(value, "0")] == '\0') {
		*ret_ns = 0;
		return 0;
	}
	return parse_time(option, value, ret_ns, err);
}

/* The indexes alone take that of a program of some size. */
#define TABLES_LEAST (UINT64_C(4) << 20)

static int parse_bytes(const struct pl_option *option, const char *value, uint64_t *ret, struct pl_error *err)
{
	int r = pl_parse_size(value, ret);

	if (r == -ERANGE)
		return pl_fail(err, r, "--%s: '%s' is out of range: at most 4 EiB", option->name, value);
	if (r < 0)
		return pl_fail(err, r, "--%s: '%s' is not a size: give bytes or a unit, as 4096, 64KiB or 1M",
			option->name, value);
	return 0;
}

static int parse_whole(const struct pl_option *option, const char *value, int64_t min, int64_t max, int64_t *ret,
		       struct pl_error *err)
{
	int r = pl_parse_number(value, min, max, ret);

	if (r < 0)
		return pl_fail(err, r, "--%s: '%s' is not a whole number from %lld to %lld", option->name, value,
			(long long)min, (long long)max);
	return 0;
}

static int append_glob(const char ***list, const char *value, struct pl_error *err)
{
	size_t count = 0;

	while (*list && (*list)[count])
		count++;
	const char **grown = reallocarray(*list, count + 2, sizeof(*grown));
	if (!grown)
		return pl_fail(err, -ENOMEM, "out of memory");
	grown[count] = value;
	grown[count + 1] = NULL;
	*list = grown;
	return 0;
}

int pl_option_apply(const struct pl_option *option, const char *value, struct pl_options *options, struct pl_error *err)
{
	int64_t number = 0;
	int choice = 0, r = 0;

	if (option->choices) {
		r = choose(option, options->command, value, &choice, err);
		if (r < 0)
			return r;
	}
	switch (option->id) {
	case 'p':
		r = parse_whole(option, value, 1, INT_MAX, &number, err);
		options->pid_option = (pid_t)number;
		return r;
	case 'i':
		options->interval_given = true;
		return parse_time(option, value, &options->interval_ns, err);
	case 'd':
		return parse_time(option, value, &options->duration_ns, err);
	case 'c':
		options->count_given = true;
		return parse_whole(option, value, 1, INT_MAX, &options->count, err);
	case PL_OPTION_SAVE:
		options->save = value;
		return *value ? 0 : pl_fail(err, -EINVAL, "--save needs the name of a file");
	case PL_OPTION_SYSROOT:
		options->sysroot = value;
		return *value ? 0 : pl_fail(err, -EINVAL, "--sysroot needs the name of a folder");
	case PL_OPTION_AGAINST:
		options->against_first = choice;
		return 0;
	case 'f':
		r = parse_whole(option, value, 1, 128, &number, err);
		options->frames = (int)number;
		options->frames_given = true;
		return r;
	case PL_OPTION_NATIVE_FRAMES:
		r = parse_whole(option, value, 0, PL_NATIVE_FRAMES_MAX, &number, err);
		options->native_frames = (int)number;
		return r;
	case PL_OPTION_DOMAIN:
		options->python = choice & 1;
		options->native = choice & 2;
		options->domain_given = true;
		return 0;
	case 'e':
		options->engine = (enum pl_engine_kind)choice;
		return 0;
	case PL_OPTION_SAMPLE:
		options->sample_given = true;
		return parse_bytes(option, value, &options->sample, err);
	case PL_OPTION_TABLES:
		r = parse_bytes(option, value, &options->tables, err);
		if (r == 0 && options->tables && options->tables < TABLES_LEAST)
			r = pl_fail(err, -EINVAL, "--tables %s: must be at least 4M, or 0 for a share of the process's memory", value);
		return r;
	case PL_OPTION_NO_FREE_LISTS:
		options->park = true;
		return 0;
	case PL_OPTION_KEEP:
		options->keep = true;
		return 0;
	case PL_OPTION_HOLDERS:
		options->holders = true;
		return 0;
	case PL_OPTION_TYPE:
		options->type = value;
		return 0;
	case PL_OPTION_MAX_STOP:
		return parse_time(option, value, &options->max_stop_ns, err);
	case PL_OPTION_FROM:
		return parse_moment(option, value, &options->from_ns, err);
	case PL_OPTION_INFO:
		options->info = true;
		return 0;
	case PL_OPTION_TO:
		return parse_moment(option, value, &options->to_ns, err);
	case PL_OPTION_CHILDREN:
		options->children = true;
		return 0;
	case PL_OPTION_PER_PROCESS:
		options->per_process = true;
		return 0;
	case 'n':
		r = parse_whole(option, value, 0, INT_MAX, &number, err);
		options->limit = (size_t)number;
		options->limit_given = true;
		return r;
	case 'g':
		options->group_by = (enum pl_group)choice;
		return 0;
	case 's':
		options->sort = (enum pl_sort)choice;
		options->sort_given = true;
		return 0;
	case PL_OPTION_INCLUDE:
		return append_glob(&options->include, value, err);
	case PL_OPTION_EXCLUDE:
		return append_glob(&options->exclude, value, err);
	case PL_OPTION_FORMAT:
		options->format = (enum pl_format)choice;
		options->format_given = true;
		return 0;
	case 'o':
		if (!*value)
			return pl_fail(err, -EINVAL, "--output: the file name is empty");
		options->output = value;
		return 0;
	case PL_OPTION_FORCE:
		options->force = true;
		return 0;
	case PL_OPTION_LISTEN:
		options->listen = value;
		return pl_serve_check(value, err);
	case PL_OPTION_LISTEN_TOKEN:
		options->listen_token = value;
		return 0;
	case PL_OPTION_FAIL_ABOVE:
		options->fail_above_set = true;
		return parse_bytes(option, value, &options->fail_above, err);
	case PL_OPTION_COLOR:
		options->color = (enum pl_color)choice;
		return 0;
	case 'q':
		options->quiet = true;
		options->verbose = false;
		return 0;
	case 'v':
		options->verbose = true;
		options->quiet = false;
		return 0;
	default:
		return 0; /* --help and --version were answered before */
	}
}
