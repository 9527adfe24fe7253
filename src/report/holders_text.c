/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/holders_report.h"
#include "pyleak/report.h"
#include "pyleak/units.h"

/* Holders for a person: the block with the most memory first. */

enum { TYPES_SHOWN = 4, BLOCKS = 4, LITTLE = 4096, GROWTH_INDENT = 13, INDENT = 21, WIDTH = 80, NEAR = 25 /* columns: behind a comma is better */ };

static void print_size(FILE *out, uint64_t size, uint64_t of)
{
	char text[PL_SIZE_TEXT];

	pl_format_size((int64_t)size, false, text);
	(void)fprintf(out, "%10s %5.1f %%  ", text, of ? 100.0 * (double)size / (double)of : 0.0);
}

static void print_name(FILE *out, const char *text, bool bold)
{
	pl_autofree char *name = pl_printable(text);

	(void)fprintf(out, "%s%s%s", bold ? "\033[1m" : "", name ? name : "?", bold ? "\033[0m" : "");
}

static void print_types(FILE *out, const struct pl_held_type *types, size_t count)
{
	char buffer[PL_NUMBER_TEXT], text[PL_SIZE_TEXT];

	for (size_t i = 0; i < count && i < TYPES_SHOWN; i++) {
		const struct pl_held_type *type = &types[i];

		(void)fprintf(out, "%*s%s x ", INDENT, "", pl_format_number(type->count, buffer));
		print_name(out, type->type, false);
		pl_format_size((int64_t)type->size, false, text);
		(void)fprintf(out, ": %s", text);
		if (strcmp(type->sample, PL_SAMPLE_KEY) == 0) {
			(void)fputs(type->count > 1 ? ", as keys" : ", as a key", out);
		} else if (type->sample[0] && type->count > 1) {
			(void)fputs(", such as ", out);
			print_name(out, type->sample, false);
		} else if (type->sample[0]) {
			(void)fputs(", ", out);
			print_name(out, type->sample, false);
		}
		(void)fputc('\n', out);
	}
}

static void print_holders(FILE *out, const struct pl_holders *holders, bool color)
{
	char buffer[PL_NUMBER_TEXT];

	for (size_t i = 0; i < holders->holder_count; i++) {
		const struct pl_holder *holder = &holders->holders[i];

		print_size(out, holder->size, holders->size);
		print_name(out, holder->path, color);
		(void)fputs(" (", out);
		print_name(out, holder->type, false);
		(void)fprintf(out, "), %s object%s\n", pl_format_number(holder->count, buffer), holder->count == 1 ? "" : "s");
		print_types(out, holder->contents, holder->content_count < 2 ? holder->content_count : 2);
	}
}

static void print_growth(FILE *out, const struct pl_holders *holders, bool color)
{
	char buffer[PL_NUMBER_TEXT], text[PL_SIZE_TEXT];

	for (size_t i = 0; i < holders->holder_count && holders->holders[i].size_diff > 0; i++) {
		const struct pl_holder *holder = &holders->holders[i];

		pl_format_size(holder->size_diff, true, text);
		(void)fprintf(out, "%11s  ", text);
		print_name(out, holder->path, color);
		pl_format_size((int64_t)holder->size, false, text);
		(void)fprintf(out, " (%s)\n", text);
		for (size_t j = 0; j < holder->content_count && j < 2; j++) {
			const struct pl_held_type *type = &holder->contents[j];

			if (type->count_diff <= 0)
				continue;
			pl_format_size(type->size_diff, true, text);
			(void)fprintf(out, "%*s+%s x ", GROWTH_INDENT, "", pl_format_number((uint64_t)type->count_diff, buffer));
			print_name(out, type->type, false);
			(void)fprintf(out, ": %s\n", text);
		}
	}
	pl_format_size(holders->size_diff, true, text);
	(void)fprintf(out, "objects: %s", text);
	pl_format_size(holders->garbage_diff, true, text);
	(void)fprintf(out, ", of it garbage in cycles: %s", text);
	pl_format_size(holders->native_diff, true, text);
	(void)fprintf(out, ", held by native code: %s\n", text);
}

static void print_groups(FILE *out, const struct pl_holders *holders, bool of_a_type)
{
	char buffer[PL_NUMBER_TEXT];

	for (size_t i = 0; i < holders->group_count; i++) {
		const struct pl_held_group *group = &holders->groups[i];

		print_size(out, group->size, holders->size);
		(void)fprintf(out, "%s x ", pl_format_number(group->count, buffer));
		print_name(out, group->type, false);
		(void)fputs(of_a_type ? ", reached by\n" : ", held by more than one; reached by\n", out);
		for (size_t j = 0; j < group->held_by_count; j++) {
			(void)fprintf(out, "%*s", INDENT, "");
			print_name(out, group->held_by[j].path, false);
			(void)fprintf(out, " (%s)\n", pl_format_number(group->held_by[j].count, buffer));
		}
	}
}

/* A few objects that one is not sure of are not worth a line. */
static bool is_little(const struct pl_holders *holders, uint64_t size)
{
	return size < LITTLE || size < holders->size / 200;
}

static void print_garbage(FILE *out, const struct pl_holders *holders)
{
	char buffer[PL_NUMBER_TEXT];

	if (is_little(holders, holders->garbage.size))
		return;
	print_size(out, holders->garbage.size, holders->size);
	(void)fprintf(out, "garbage in cycles%s, %s objects\n",
		holders->collector_known && !holders->collector_enabled ? " (the collector is off)" : "",
		pl_format_number(holders->garbage.count, buffer));
	print_types(out, holders->garbage.types, holders->garbage.type_count);
	if (holders->full_known && holders->full)
		(void)fprintf(out, "%*slast full run: %u younger one%s ago, %" PRIu64 " in all\n", INDENT, "", holders->since_full,
			holders->since_full == 1 ? "" : "s", holders->full);
	else if (holders->full_known)
		(void)fprintf(out, "%*sthere has not been a full run yet\n", INDENT, "");
}

/* Cycles among them are never garbage. */
static void print_frozen(FILE *out, const struct pl_holders *holders)
{
	char buffer[PL_NUMBER_TEXT];

	if (holders->frozen_known && holders->frozen)
		(void)fprintf(out, "gc.freeze() has taken %s objects from the collector of cycles\n",
			pl_format_number(holders->frozen, buffer));
}

static void print_native(FILE *out, const struct pl_holders *holders)
{
	char buffer[PL_NUMBER_TEXT];

	if (is_little(holders, holders->native.size))
		return;
	print_size(out, holders->native.size, holders->size);
	(void)fprintf(out, "held by native code, %s objects\n", pl_format_number(holders->native.count, buffer));
	for (size_t i = 0; i < holders->native.type_count && i < TYPES_SHOWN; i++) {
		const struct pl_held_type *type = &holders->native.types[i];
		char text[PL_SIZE_TEXT];

		if (i && type->size < holders->native.size / 100)
			break;
		pl_format_size((int64_t)type->size, false, text);
		(void)fprintf(out, "%*s%s x ", INDENT, "", pl_format_number(type->count, buffer));
		print_name(out, type->type, false);
		(void)fprintf(out, ": %s, %s", text, type->unowned ? "references that nobody owns" : "known to native code");
		if (type->library) {
			(void)fputs(" (", out);
			print_name(out, type->library, false);
			(void)fputc(')', out);
		}
		if (type->sample[0]) {
			(void)fputs(", such as ", out);
			print_name(out, type->sample, false);
		}
		(void)fputc('\n', out);
	}
}

static uint64_t block_size(const struct pl_holders *holders, int block)
{
	switch (block) {
	case 0: return holders->holder_count ? holders->holders[0].size : 0;
	case 1: return holders->group_count ? holders->groups[0].size : 0;
	case 2: return holders->garbage.size;
	default: return holders->native.size;
	}
}

/* What to look at. */
static void print_advice(FILE *out, const struct pl_holders *holders, int first)
{
	uint64_t size = block_size(holders, first);

	if (size < holders->size / 10)
		return;
	switch (first) {
	case 0:
		(void)fputs("look at ", out);
		print_name(out, holders->holders[0].path, false);
		(void)fprintf(out, ": it alone keeps %.0f %% of the memory of objects\n", 100.0 * (double)size / (double)holders->size);
		return;
	case 1:
		(void)fputs("no single variable keeps most: see who leads to the objects of the first line\n", out);
		return;
	case 2:
		(void)fputs(holders->collector_known && !holders->collector_enabled ?
			"the collector of cycles is off: gc.collect() would free what the first line says\n" :
			"gc.collect() would free what the first line says\n", out);
		return;
	default:
		(void)fputs(holders->native.type_count && holders->native.types[0].unowned ?
			"look at the extension that makes the objects of the first lines: it keeps references that it forgot (a DECREF)\n" :
			"look at the extension that makes the objects of the first lines: it keeps them\n", out);
		return;
	}
}

/* The resident size and its parts, in one line. False: with the number of objects it would be too long. */
static bool print_head(FILE *out, const struct pl_holders_report *report, bool counts)
{
	const struct pl_holders *holders = report->holders;
	char size[PL_SIZE_TEXT], number[PL_NUMBER_TEXT], line[256];
	uint64_t all = report->rss ? report->rss : report->memory;
	int length;

	pl_format_size((int64_t)all, false, size);
	length = snprintf(line, sizeof(line), "%s %s: ", report->rss || !report->file ? "RSS" : "memory", size);
	pl_format_size((int64_t)holders->size, false, size);
	length += snprintf(line + length, sizeof(line) - (size_t)length, "%s%sobjects %s",
		counts ? pl_format_number(holders->count, number) : "", counts ? " " : "", size);
	if (report->account_known) {
		pl_format_size((int64_t)report->free, false, size);
		length += snprintf(line + length, sizeof(line) - (size_t)length, ", free %s", size);
		pl_format_size((int64_t)report->files, false, size);
		length += snprintf(line + length, sizeof(line) - (size_t)length, ", files %s", size);
		if (report->rss > holders->size + report->free + report->files) {
			pl_format_size((int64_t)(report->rss - holders->size - report->free - report->files), false, size);
			length += snprintf(line + length, sizeof(line) - (size_t)length, ", other %s", size);
		}
	}
	if (counts && length > WIDTH)
		return false;
	(void)fprintf(out, "%s\n", line);
	return true;
}

static int print_all(FILE *out, const struct pl_holders_report *report, bool color)
{
	const struct pl_holders *holders = report->holders;
	bool printed[BLOCKS] = { false };
	int first = -1;

	if (!print_head(out, report, true))
		(void)print_head(out, report, false);
	if (holders->compared) {
		print_growth(out, holders, color);
		return ferror(out) ? -EIO : 0;
	}
	if (report->type) {
		print_groups(out, holders, true);
		if (!holders->group_count)
			(void)fprintf(out, "no objects of a type '%s' were found\n", report->type);
		return ferror(out) ? -EIO : 0;
	}
	for (int i = 0; i < BLOCKS; i++) {
		int best = -1;

		for (int block = 0; block < BLOCKS; block++)
			if (!printed[block] && (best < 0 || block_size(holders, block) > block_size(holders, best)))
				best = block;
		printed[best] = true;
		if (first < 0)
			first = best;
		if (best == 0)
			print_holders(out, holders, color);
		else if (best == 1)
			print_groups(out, holders, false);
		else if (best == 2)
			print_garbage(out, holders);
		else
			print_native(out, holders);
	}
	print_frozen(out, holders);
	print_advice(out, holders, first);
	return ferror(out) ? -EIO : 0;
}

/* Columns of the character or the escape sequence that begins here, and its bytes. */
static size_t columns_of(const char *text, size_t *ret_length)
{
	*ret_length = 1;
	if (*text == '\033') {
		*ret_length = strcspn(text, "m") + (strchr(text, 'm') != NULL);
		return 0;
	}
	while (((unsigned char)text[*ret_length] & 0xc0) == 0x80)
		++*ret_length;
	return 1;
}

/* Not between a number and its unit. */
static bool may_break(const char *line, const char *blank)
{
	return blank > line && !(blank[-1] >= '0' && blank[-1] <= '9' && strchr("KMGTPBx%", blank[1]));
}

/* One line, broken at blanks where it is longer than WIDTH; further lines are indented a little more than the first. What has
 * no blank, as a path mostly, is never cut. */
static void print_wrapped(FILE *out, const char *line, size_t size)
{
	const char *end = line + size, *blank = NULL, *any = NULL;
	size_t indent = strspn(line, " "), column = 0, length;
	int depth = 0; /* of brackets: better not within a sample */

	if (indent < INDENT)
		indent = size > INDENT && strchr(line, '%') && line[0] == ' ' ? INDENT : 2;
	for (const char *at = line; at < end; at += length) {
		depth += (*at == '(' || *at == '[' || *at == '{') - (*at == ')' || *at == ']' || *at == '}');
		if (*at == ' ' && column >= indent && may_break(line, at)) {
			any = at;
			if (depth <= 0 && (!blank || column < WIDTH - NEAR || at[-1] == ',' || blank[-1] != ','))
				blank = at;
		}
		column += columns_of(at, &length);
		if (column <= WIDTH || !any)
			continue;
		if (!blank)
			blank = any;
		(void)fprintf(out, "%.*s\n%*s", (int)(blank - line), line, (int)indent + 2, "");
		line = blank + 1;
		at = line;
		length = 0;
		column = indent + 2;
		blank = any = NULL;
		depth = 0;
	}
	(void)fwrite(line, 1, (size_t)(end - line), out);
	(void)fputc('\n', out);
}

int pl_holders_text(FILE *out, const struct pl_holders_report *report, bool color)
{
	pl_autofree char *text = NULL;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);
	int code = stream ? print_all(stream, report, color) : -ENOMEM;

	if (stream && fclose(stream) != 0 && code == 0)
		code = -ENOMEM;
	for (const char *line = text, *end; code == 0 && (end = strchr(line, '\n')); line = end + 1)
		print_wrapped(out, line, (size_t)(end - line));
	return code < 0 ? code : ferror(out) ? -EIO : 0;
}
