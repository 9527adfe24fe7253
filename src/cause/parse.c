/* SPDX-License-Identifier: MIT */
#include "parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the parser is, for errors. */
struct place {
	const char *name;
	size_t line;
	struct pl_error *err;
};

static int fail(const struct place *place, const char *problem, const char *what)
{
	return pl_fail(place->err, -EINVAL, "%s, line %zu: %s%s%s%s", place->name, place->line, problem, what ? " '" : "",
		what ? what : "", what ? "'" : "");
}

static int out_of_memory(const struct place *place)
{
	return pl_fail(place->err, -ENOMEM, "out of memory");
}

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

/* The section that has ended is whole. */
static int check_section(const struct pl_causes *causes, const struct place *place)
{
	const struct pl_cause *last = causes->count ? &causes->causes[causes->count - 1] : NULL;

	if (!last)
		return 0;
	if (!last->cause || !last->remedy || !last->see)
		return fail(place, "before this, cause, remedy or see is missing in section", last->name);
	if (!causes->match_count || causes->matches[causes->match_count - 1].cause != causes->count - 1)
		return fail(place, "before this, there is no match in section", last->name);
	return 0;
}

static int begin_section(struct pl_causes *causes, char *line, const struct place *place)
{
	size_t length = strlen(line);
	struct pl_cause *grown;
	int code = check_section(causes, place);

	if (code < 0)
		return code;
	if (length < 3 || line[length - 1] != ']')
		return fail(place, "not the name of a section in brackets:", line);
	line[length - 1] = '\0';
	for (size_t i = 0; i < causes->count; i++)
		if (strcmp(causes->causes[i].name, line + 1) == 0)
			return fail(place, "there is a section of this name already:", line + 1);
	grown = reallocarray(causes->causes, causes->count + 1, sizeof(*grown));
	if (!grown)
		return out_of_memory(place);
	causes->causes = grown;
	grown[causes->count++] = (struct pl_cause){.name = line + 1};
	return 0;
}

static int add_match(struct pl_causes *causes, char *frames, const struct place *place)
{
	struct cause_match match = {.cause = causes->count - 1}, *grown;
	char *word;

	while ((word = strsep(&frames, " \t"))) {
		/* In a "def" line there may be others. */
		char *colon = strstr(word, ":@");

		if (!colon)
			colon = strstr(word, ":=");
		if (!colon)
			colon = strrchr(word, ':');
		if (!*word)
			continue;
		if (match.inner)
			return fail(place, "'...' stands at the end of a match only, here follows", word);
		if (strcmp(word, "...") == 0) {
			match.inner = true;
			continue;
		}
		if (!colon || colon == word || !colon[1])
			return fail(place, "not FILE:FUNCTION:", word);
		if (match.count == MAX_MATCH_FRAMES)
			return fail(place, "too many frames in one match", NULL);
		*colon = '\0';
		match.frames[match.count].file = word;
		match.frames[match.count++].function = colon + 1;
	}
	if (!match.count)
		return fail(place, "a match without a frame", NULL);
	grown = reallocarray(causes->matches, causes->match_count + 1, sizeof(*grown));
	if (!grown)
		return out_of_memory(place);
	causes->matches = grown;
	grown[causes->match_count++] = match;
	return 0;
}

int pl_causes_version(const char *text)
{
	int major = 0, minor = 0, patch = 0;

	return sscanf(text, "%d.%d.%d", &major, &minor, &patch) >= 2 && major >= 0 && major < 100 && minor >= 0 && minor < 100 &&
			       patch >= 0 && patch < 100 ?
		       major * 10000 + minor * 100 + patch :
		       0;
}

#define LIVE "live:"

static int add_condition(struct pl_causes *causes, char *text, const struct place *place)
{
	static const char *const facts[] = {
		[CAUSE_THREADS] = "threads", [CAUSE_PYTHON] = "python", [CAUSE_MAXSIZE] = "maxsize",
		[CAUSE_LIVE] = "tracebacks", [CAUSE_CHAIN] = "chain"};
	static const char *const relations[] = {[CAUSE_BELOW] = "<", [CAUSE_ABOVE] = ">", [CAUSE_AT_LEAST] = ">="};
	/* "tracebacks" is what "live:traceback" is. */
	struct cause_condition condition = {.cause = causes->count - 1, .glob = "traceback"}, *grown;
	char fact[64], relation[3], number[16], rest[2], *end;
	bool live;

	if (sscanf(text, "%63s %2s %15s %1s", fact, relation, number, rest) != 3)
		return fail(place, "not FACT RELATION NUMBER:", text);
	live = strncmp(fact, LIVE, strlen(LIVE)) == 0 && fact[strlen(LIVE)];
	while (!live && strcmp(facts[condition.fact], fact) != 0)
		if (++condition.fact == sizeof(facts) / sizeof(facts[0]))
			return fail(place, "not one of threads, python, maxsize, tracebacks, chain and live:GLOB:", text);
	while (strcmp(relations[condition.relation], relation) != 0)
		if (++condition.relation == sizeof(relations) / sizeof(relations[0]))
			return fail(place, "not one of <, > and >=:", text);
	condition.number = condition.fact == CAUSE_PYTHON ? pl_causes_version(number) : (int)strtol(number, &end, 10);
	if (condition.fact == CAUSE_PYTHON ? !condition.number : *end || condition.number < 0)
		return fail(place, "not a number:", text);
	grown = reallocarray(causes->conditions, causes->condition_count + 1, sizeof(*grown));
	if (!grown)
		return out_of_memory(place);
	causes->conditions = grown;
	if (live) {
		/* It stands in the text, which is kept. */
		condition.fact = CAUSE_LIVE;
		condition.glob = text + strlen(LIVE);
		text[strlen(fact)] = '\0';
	}
	grown[causes->condition_count++] = condition;
	return 0;
}

static int take_line(struct pl_causes *causes, char *line, const struct place *place)
{
	struct pl_cause *section = causes->count ? &causes->causes[causes->count - 1] : NULL;
	const char **field;
	char *value;

	line = trim(line);
	if (!*line || *line == '#')
		return 0;
	if (*line == '[')
		return begin_section(causes, line, place);
	value = line + strcspn(line, " \t");
	if (*value)
		*value++ = '\0';
	value = trim(value);
	if (!section)
		return fail(place, "this stands in no section:", line);
	if (!*value)
		return fail(place, "nothing follows", line);
	if (strcmp(line, "match") == 0)
		return add_match(causes, value, place);
	if (strcmp(line, "when") == 0)
		return add_condition(causes, value, place);
	field = strcmp(line, "cause") == 0    ? &section->cause :
		strcmp(line, "remedy") == 0 ? &section->remedy :
		strcmp(line, "see") == 0    ? &section->see :
					      NULL;
	if (!field)
		return fail(place, "not one of cause, remedy, see, when and match:", line);
	if (*field)
		return fail(place, "the section has this already:", line);
	*field = value;
	return 0;
}

int pl_causes_parse(const char *text, size_t length, const char *name, struct pl_causes **ret, struct pl_error *err)
{
	struct place place = {.name = name, .err = err};
	struct pl_causes *causes = calloc(1, sizeof(*causes));
	char *rest, *line;
	int code = 0;

	if (causes)
		causes->text = rest = strndup(text, length);
	if (!causes || !causes->text) {
		pl_causes_free(causes);
		return out_of_memory(&place);
	}
	while (code == 0 && (line = strsep(&rest, "\n"))) {
		place.line++;
		code = take_line(causes, line, &place);
	}
	if (code == 0)
		code = check_section(causes, &place);
	if (code < 0) {
		pl_causes_free(causes);
		return code;
	}
	*ret = causes;
	return 0;
}

void pl_causes_free(struct pl_causes *causes)
{
	if (!causes)
		return;
	free(causes->text);
	free(causes->causes);
	free(causes->matches);
	free(causes->conditions);
	free(causes);
}
