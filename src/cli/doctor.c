/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checks.h"
#include "json_text.h"
#include "output.h"
#include "pyleak/engine.h"
#include "pyleak/log.h"
#include "pyleak/options.h"
#include "remedy.h"

/* Whether attaching would work: every check, and for each that fails what to do; and what of native memory is seen. */

enum outcome { PASSED, FAILED, NOT_CHECKED };

struct finding {
	enum outcome outcome;
	char note[PL_CHECK_NOTE];
	struct pl_error err;
	const char *lacks; /* NOT_CHECKED: the check that it needs */
	struct pl_remedies remedies;
};

struct diagnosis {
	struct pl_subject subject;
	struct finding *findings; /* one for each of pl_checks[] */
	bool attachable;
	struct pl_engine_library *libraries;
	size_t library_count;
};

/* The first of the checks in this set that did not pass. */
static const char *first_of(unsigned int checks)
{
	return pl_checks[__builtin_ctz(checks)].name;
}

static int examine(pid_t pid, struct diagnosis *diagnosis, struct pl_error *err)
{
	const struct pl_patient patient = {
		.process = &diagnosis->subject.process,
		.root = geteuid() == 0,
		.contained = pl_process_is_contained(getpid()),
	};
	unsigned int missing = 0;
	int code = pl_subject_open(&diagnosis->subject, pid, false, err);

	if (code < 0)
		return code;
	diagnosis->findings = calloc(pl_check_count, sizeof(*diagnosis->findings));
	if (!diagnosis->findings)
		return pl_fail(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < pl_check_count; i++) {
		struct finding *finding = &diagnosis->findings[i];

		if (pl_checks[i].needs & missing) {
			finding->outcome = NOT_CHECKED;
			finding->lacks = first_of(pl_checks[i].needs & missing);
		} else if (pl_checks[i].run(&diagnosis->subject, finding->note, &finding->err) < 0) {
			finding->outcome = FAILED;
		}
		if (finding->outcome != PASSED)
			missing |= 1u << i;
		pl_remedies_spell(finding->err.remedies, &patient, &finding->remedies);
	}
	diagnosis->attachable = missing == 0;
	/* If it cannot be read, a check has said why. */
	if (diagnosis->subject.python)
		(void)pl_engine_libraries(diagnosis->subject.python, &diagnosis->libraries, &diagnosis->library_count);
	return 0;
}

static void print_libraries(FILE *out, const struct diagnosis *diagnosis)
{
	if (!diagnosis->library_count)
		return;
	(void)fprintf(out, "  native allocators are called by %zu loaded objects, through words that are\n"
			   "    jumped through, loaded, pointers in data:\n",
		diagnosis->library_count);
	for (size_t i = 0; i < diagnosis->library_count; i++) {
		const struct pl_engine_library *library = &diagnosis->libraries[i];

		(void)fprintf(out, "    %6u %6u %6u  %s", library->jumped, library->loaded, library->pointers, library->path);
		if (library->left)
			(void)fprintf(out, ": %u not recorded, %s", library->left, library->why);
		(void)fputc('\n', out);
	}
}

static void print_text(FILE *out, const struct diagnosis *diagnosis, bool color)
{
	static const struct {
		const char *word, *style;
	} outcomes[] = {
		[PASSED] = {"ok", "\033[32m"},
		[FAILED] = {"no", "\033[1;31m"},
		[NOT_CHECKED] = {"-", ""},
	};
	const struct pl_process *process = &diagnosis->subject.process;

	(void)fprintf(out, "process %d: %s\n", (int)process->pid, pl_process_title(process));
	for (size_t i = 0; i < pl_check_count; i++) {
		const struct finding *finding = &diagnosis->findings[i];

		(void)fprintf(out, "  %s%-2s%s  %-10s  %s%s\n", color ? outcomes[finding->outcome].style : "",
			outcomes[finding->outcome].word, color ? "\033[0m" : "", pl_checks[i].name,
			finding->lacks ? "not checked without " : "",
			finding->outcome == PASSED ? finding->note :
			finding->outcome == FAILED ? finding->err.text :
						     finding->lacks);
		for (size_t j = 0; j < finding->remedies.count; j++)
			(void)fprintf(out, "                  $ %s\n", finding->remedies.lines[j]);
	}
	print_libraries(out, diagnosis);
	(void)fprintf(out, "process %d can%s be attached to\n", (int)process->pid, diagnosis->attachable ? "" : "not");
}

static json_t *make_finding(const struct pl_check *check, const struct finding *finding)
{
	static const char *const outcomes[] = {[PASSED] = "pass", [FAILED] = "fail", [NOT_CHECKED] = "not checked"};
	json_t *remedies = json_array();

	for (size_t i = 0; i < finding->remedies.count; i++)
		(void)json_array_append_new(remedies, pl_json_text(finding->remedies.lines[i]));
	return json_pack("{ss ss so? so}", "name", check->name, "outcome", outcomes[finding->outcome], "text",
		finding->outcome == PASSED ? pl_json_text(finding->note) :
		finding->outcome == FAILED ? pl_json_text(finding->err.text) : NULL,
		"remedies", remedies);
}

static json_t *make_libraries(const struct diagnosis *diagnosis)
{
	json_t *array = json_array();

	for (size_t i = 0; i < diagnosis->library_count; i++) {
		const struct pl_engine_library *library = &diagnosis->libraries[i];

		(void)json_array_append_new(array,
			json_pack("{so si si si si si ss?}", "path", pl_json_text(library->path), "jumped", (int)library->jumped,
				"loaded", (int)library->loaded, "pointers", (int)library->pointers, "covered",
				(int)library->covered, "not_recorded", (int)library->left, "why", library->why));
	}
	return array;
}

static int print_json(FILE *out, const struct diagnosis *diagnosis)
{
	const struct pl_python *python = diagnosis->subject.python;
	json_t *checks = json_array();
	json_t *document;
	int code;

	for (size_t i = 0; i < pl_check_count; i++)
		(void)json_array_append_new(checks, make_finding(&pl_checks[i], &diagnosis->findings[i]));
	document = json_pack("{si ss si ss? so sb so so}", "schema", 1, "kind", "doctor", "pid",
		(int)diagnosis->subject.process.pid, "python", python ? python->version : NULL, "command",
		pl_json_text(pl_process_title(&diagnosis->subject.process)), "attachable", diagnosis->attachable, "checks", checks,
		"libraries", make_libraries(diagnosis));
	if (!document)
		return -ENOMEM;
	code = json_dumpf(document, out, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(document);
	(void)fputc('\n', out);
	return code < 0 ? -EIO : 0;
}

int pl_command_doctor(const struct pl_options *options)
{
	struct diagnosis diagnosis = {.attachable = false};
	struct pl_output output = {0};
	struct pl_error err = {0};
	pid_t pid;
	int code = pl_choose_process(options, &pid, &err);

	if (code == 0)
		code = examine(pid, &diagnosis, &err);
	if (code == 0)
		code = pl_output_open(options, &output, &err);
	if (code == 0 && options->format == PL_FORMAT_JSON)
		code = print_json(output.stream, &diagnosis);
	else if (code == 0)
		print_text(output.stream, &diagnosis, pl_output_color(options, &output));
	if (code < 0)
		(void)pl_fail(&err, code, "the answer could not be written: %s", strerror(-code));
	(void)pl_output_close(&output, &err);
	pl_subject_close(&diagnosis.subject);
	free(diagnosis.findings);
	pl_engine_libraries_free(diagnosis.libraries, diagnosis.library_count);
	if (err.code)
		pl_log_error("%s", err.text);
	return err.code || !diagnosis.attachable ? PL_EXIT_FAILED : PL_EXIT_DONE;
}
