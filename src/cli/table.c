/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "table.h"

#define FOR_RECORDING (PL_FOR(ATTACH) | PL_FOR(RUN) | PL_FOR(DIFF))
/* why looks at the process itself, by rows of its own. */
#define FOR_HOOKING (FOR_RECORDING | PL_FOR(WHY))
#define FOR_PROCESS (PL_FOR(ATTACH) | PL_FOR(DIFF) | PL_FOR(WHY) | PL_FOR(DETACH) | PL_FOR(HEAP) | PL_FOR(HOLDERS) | PL_FOR(DOCTOR))
#define FOR_ROWS (FOR_RECORDING | PL_FOR(REPORT))
#define FOR_RESULTS (PL_FOR(REPORT) | PL_FOR(PS) | PL_FOR(HEAP) | PL_FOR(HOLDERS) | PL_FOR(DOCTOR) | FOR_HOOKING)

const struct pl_command_entry pl_command_table[PL_COMMAND_COUNT] = {
	[PL_COMMAND_PS] = {"ps", false, "list the Python processes, and whether each can be attached to",
		"Lists the Python processes that you can see: process id, Python version, resident "
		"size, threads, whether pyleak can attach (and if not, why), whether a probe is in "
		"it, and its command line."},
	[PL_COMMAND_ATTACH] = {"attach", true, "record, and show by line what is live",
		"Hooks the process, records its allocations, and shows by line what of them is still "
		"live: on a terminal in a live view ('?' there lists its keys), otherwise once. It ends at 'q', "
		"^C, SIGTERM or after --duration: then it detaches and prints the last report."},
	[PL_COMMAND_RUN] = {"run", false, "start a Python program and record it from its first allocation",
		"Starts the program and records it, as attach does, from before its own code runs; whatever starts it (a "
		"shell, gunicorn) is followed to the Python. Signals are passed on, and the status is that of the program. "
		"Needs no right to trace others: the program is its own child.", .takes_program = true},
	[PL_COMMAND_DIFF] = {"diff", true, "record two windows, and show by line what grew",
		"Records for one --interval, takes a snapshot, records for another, takes a second "
		"one, and prints the second against the first."},
	[PL_COMMAND_WHY] = {"why", true, "say in ten lines whether it leaks, where, and who holds it",
		"Records the process for eight windows of --interval, or for as long as --duration says, or until the answer is "
		"sure; then says whether it leaks, how fast, on which line, who called it, which variable holds it, and what to "
		"do. Where it leaks, it is stopped for a moment, to find that variable."},
	[PL_COMMAND_DETACH] = {"detach", true, "remove a probe that was left behind",
		"Removes the probe that a killed pyleak left in the process."},
	[PL_COMMAND_HEAP] = {"heap", true, "show by type what is alive, whenever it was allocated",
		"Counts the objects in the process's memory by their type, those that are older than any recording too. Nothing "
		"is hooked. Where no allocator's blocks can be walked (without a GIL, another malloc than glibc's), the process is "
		"stopped once, while its heap is copied."},
	[PL_COMMAND_HOLDERS] = {"holders", true, "show which variables keep the memory, whenever it was allocated",
		"Stops the process once, for as long as it takes to copy its heap, and shows which variables keep its "
		"memory: each with what would go if it went; then garbage in cycles, and objects that only native code holds. "
		"In the place of a process it takes a core file, or a heap that --save wrote; of two it shows what grew.",
		.takes_cores = true},
	[PL_COMMAND_DOCTOR] = {"doctor", true, "say whether attaching would work, and if not what to do",
		"Checks, without touching the process, all that attaching needs, and says for what is "
		"missing how to get it. The status is 0 if the process can be attached to, else 1."},
	[PL_COMMAND_REPORT] = {"report", false, "show what is in a recording, or how two differ",
		"Shows what was live at the end of a recording that attach or diff wrote with --format "
		"recording; with --from, or with two recordings, what differs.", .takes_files = true},
};

const char *const pl_section_titles[PL_SECTION_COUNT] = {
	[PL_SECTION_RECORD] = "Recording",
	[PL_SECTION_ROWS] = "Rows",
	[PL_SECTION_OUTPUT] = "Output",
	[PL_SECTION_GENERAL] = "General",
};

static const struct pl_choice against_choices[] = {{"previous", false}, {"first", true}, {NULL}};
static const struct pl_choice group_choices[] = {
	{"line", PL_GROUP_LINE},
	{"file", PL_GROUP_FILE},
	{"function", PL_GROUP_FUNCTION},
	{"caller", PL_GROUP_CALLER},
	{"traceback", PL_GROUP_TRACEBACK},
	{NULL},
};
static const struct pl_choice sort_choices[] = {
	{"size", PL_SORT_SIZE},
	{"count", PL_SORT_COUNT},
	{"average", PL_SORT_AVERAGE},
	{"size-diff", PL_SORT_SIZE_DIFF, .commands = PL_FOR(DIFF) | PL_FOR(REPORT)},
	{"count-diff", PL_SORT_COUNT_DIFF, .commands = PL_FOR(DIFF) | PL_FOR(REPORT)},
	{"churn", PL_SORT_CHURN, .commands = FOR_ROWS},
	{NULL},
};
/* The values are bits: 1 python, 2 native. */
static const struct pl_choice domain_choices[] = {{"python", 1}, {"native", 2}, {"all", 3}, {NULL}};
static const struct pl_choice engine_choices[] = {
	{"inline", PL_ENGINE_INLINE},
	{"breakpoint", PL_ENGINE_BREAKPOINT},
	{NULL},
};
static const struct pl_choice format_choices[] = {
	{"text", PL_FORMAT_TEXT},
	{"json", PL_FORMAT_JSON},
	{"csv", PL_FORMAT_CSV, .commands = FOR_ROWS},
	{"folded", PL_FORMAT_FOLDED, .commands = FOR_ROWS | PL_FOR(HOLDERS)},
	{"pprof", PL_FORMAT_PPROF, .commands = FOR_ROWS | PL_FOR(HOLDERS)},
	{"speedscope", PL_FORMAT_SPEEDSCOPE, .commands = FOR_ROWS},
	{"html", PL_FORMAT_HTML, .commands = FOR_ROWS | PL_FOR(HOLDERS)},
	{"openmetrics", PL_FORMAT_OPENMETRICS, .commands = FOR_ROWS},
	{"heapsnapshot", PL_FORMAT_HEAPSNAPSHOT, .commands = PL_FOR(HOLDERS)},
	{"recording", PL_FORMAT_RECORDING, .commands = FOR_RECORDING},
	{NULL},
};
static const struct pl_choice color_choices[] = {
	{"auto", PL_COLOR_AUTO},
	{"always", PL_COLOR_ALWAYS},
	{"never", PL_COLOR_NEVER},
	{NULL},
};

/* In the order of --help, which is that of the manual page. */
const struct pl_option pl_option_table[] = {
	{'i', "interval", "TIME", .preset = "10s", .preset_why = "5s", .commands = FOR_HOOKING | PL_FOR(HOLDERS), .section = PL_SECTION_RECORD,
		.help = "length of a window (attach: of changes in the live view; holders: look twice, and show what grew): 500ms, 10s, 2m, 1h; a bare number is seconds"},
	{'d', "duration", "TIME", .commands = FOR_HOOKING, .section = PL_SECTION_RECORD,
		.help = "how long to record in all; attach: without it until ^C"},
	{'c', "count", "N", .preset = "1", .commands = PL_FOR(DIFF), .section = PL_SECTION_RECORD,
		.help = "how many differences"},
	{PL_OPTION_AGAINST, "against", .choices = against_choices, .preset = "previous", .commands = PL_FOR(DIFF),
		.section = PL_SECTION_RECORD, .help = "which snapshot each further one is compared with"},
	{'f', "frames", "N", .preset = "16", .commands = FOR_HOOKING, .section = PL_SECTION_RECORD,
		.help = "frames kept for each allocation, 1 to 128"},
	{PL_OPTION_NATIVE_FRAMES, "native-frames", "N", .preset = "8", .commands = FOR_HOOKING,
		.section = PL_SECTION_RECORD,
		.help = "frames of native code below those of Python, 0 to 64, of a part of the allocations; 0: none"},
	{PL_OPTION_DOMAIN, "domain", .choices = domain_choices, .preset = "all", .commands = FOR_ROWS | PL_FOR(WHY),
		.section = PL_SECTION_RECORD, .help = "which allocations: by the allocators of Python, of the C library (malloc and its kin), or both"},
	{'e', "engine", .choices = engine_choices, .preset = PL_ENGINE_DEFAULT, .commands = FOR_RECORDING,
		.section = PL_SECTION_RECORD, .help = "how to record"},
	{PL_OPTION_SAMPLE, "sample", "SIZE", .preset = "0", .commands = FOR_HOOKING,
		.section = PL_SECTION_RECORD,
		.help = "record one allocation per SIZE bytes on average (64KiB, 1M); 0 records every one"},
	{PL_OPTION_TABLES, "tables", "SIZE", .preset = "0", .commands = FOR_HOOKING, .section = PL_SECTION_RECORD,
		.help = "memory that the tables of the recorder may take before new tracebacks are cut to one frame; 0: half of what the process has, and 48M at least"},
	{PL_OPTION_NO_FREE_LISTS, "no-free-lists", .commands = FOR_HOOKING, .section = PL_SECTION_RECORD,
		.help = "leave the lists in which CPython parks freed blocks alone"},
	{PL_OPTION_KEEP, "keep", .commands = PL_FOR(ATTACH), .section = PL_SECTION_RECORD,
		.help = "leave the probe in place and return"},
	{PL_OPTION_CHILDREN, "children", .commands = FOR_HOOKING | PL_FOR(DETACH), .section = PL_SECTION_RECORD,
		.help = "its Python child processes too, and theirs, those that start later included"},

	{PL_OPTION_HOLDERS, "holders", .commands = FOR_RECORDING, .section = PL_SECTION_RECORD,
		.help = "below each row of the last report, who keeps its live blocks; stops the process for a moment"},
	{PL_OPTION_MAX_STOP, "max-stop", "TIME", .preset = "2s", .preset_why = "1s", .commands = FOR_HOOKING | PL_FOR(HOLDERS), .section = PL_SECTION_RECORD,
		.help = "refuse if the process would have to be stopped for longer, as its heap is copied (run, attach, diff: for --holders)"},
	{PL_OPTION_SAVE, "save", "FILE", .commands = PL_FOR(HOLDERS), .section = PL_SECTION_RECORD,
		.help = "write the heap, to be looked at elsewhere; it holds whatever secrets the process has in memory"},
	{PL_OPTION_SYSROOT, "sysroot", "DIR", .preset = "/", .commands = PL_FOR(HOLDERS), .section = PL_SECTION_RECORD,
		.help = "of a core file: where the files of its machine are"},

	{PL_OPTION_TYPE, "type", "NAME", .commands = PL_FOR(HOLDERS), .section = PL_SECTION_ROWS,
		.help = "only who leads to objects of this type: dict, User, app.User"},
	{PL_OPTION_FROM, "from", "TIME", .commands = PL_FOR(REPORT), .section = PL_SECTION_ROWS,
		.help = "compare with the snapshot nearest to this time after the start; 0 is the first"},
	{PL_OPTION_TO, "to", "TIME", .commands = PL_FOR(REPORT), .section = PL_SECTION_ROWS,
		.help = "show the snapshot nearest to this time after the start; without it the last"},
	{PL_OPTION_INFO, "info", .commands = PL_FOR(REPORT), .section = PL_SECTION_ROWS,
		.help = "say what is in the recording, and no more: of which process, when, how long, how it was made"},
	{'n', "limit", "N", .preset = "10", .commands = FOR_ROWS | PL_FOR(HEAP) | PL_FOR(HOLDERS), .section = PL_SECTION_ROWS,
		.help = "rows of a report; 0 for all, as formats other than text and json have without it"},
	{'g', "group-by", .choices = group_choices, .preset = "line", .commands = FOR_ROWS,
		.section = PL_SECTION_ROWS, .help = "what a row is; caller: the line of the program itself, whatever library it called"},
	{'s', "sort", .choices = sort_choices, .preset = "size", .preset_diff = "size-diff", .commands = FOR_ROWS | PL_FOR(HEAP),
		.section = PL_SECTION_ROWS, .help = "what comes first, largest on top"},
	{PL_OPTION_PER_PROCESS, "per-process", .commands = FOR_RECORDING, .section = PL_SECTION_ROWS,
		.help = "with --children: rows of each process, not sums over all of them"},
	{PL_OPTION_INCLUDE, "include", "GLOB", .commands = FOR_ROWS, .section = PL_SECTION_ROWS,
		.help = "only rows whose file name matches; may be repeated"},
	{PL_OPTION_EXCLUDE, "exclude", "GLOB", .commands = FOR_ROWS, .section = PL_SECTION_ROWS,
		.help = "no rows whose file name matches (by caller: charged to who called it); may be repeated"},

	{PL_OPTION_FORMAT, "format", .choices = format_choices, .preset = "text", .commands = FOR_RESULTS,
		.section = PL_SECTION_OUTPUT, .help = "what the results look like; without it as FILE of --output is named"},
	{'o', "output", "FILE", .commands = FOR_RESULTS, .section = PL_SECTION_OUTPUT,
		.help = "write there, not to standard output"},
	{PL_OPTION_FORCE, "force", .commands = FOR_RESULTS | PL_FOR(DETACH), .section = PL_SECTION_OUTPUT,
		.help = "let --output and --save overwrite an existing file; take a Python newer than pyleak knows; pass a lock"},
	{PL_OPTION_LISTEN, "listen", "ADDRESS", .commands = FOR_RECORDING, .section = PL_SECTION_OUTPUT,
		.help = "serve metrics, profiles and the report over HTTP while recording, at PORT, ADDRESS:PORT or unix:PATH"},
	{PL_OPTION_LISTEN_TOKEN, "listen-token", "FILE", .commands = FOR_RECORDING, .section = PL_SECTION_OUTPUT,
		.help = "with --listen: answer only who gives the token that is the first line of FILE"},
	{PL_OPTION_FAIL_ABOVE, "fail-above", "SIZE", .commands = FOR_ROWS, .section = PL_SECTION_OUTPUT,
		.help = "exit with status 3 if any row grew by more"},
	{PL_OPTION_COLOR, "color", .choices = color_choices, .preset = "auto", .commands = FOR_RESULTS,
		.section = PL_SECTION_OUTPUT, .help = "auto follows the terminal and NO_COLOR"},

	{'p', "pid", "PID", .commands = FOR_PROCESS, .section = PL_SECTION_GENERAL,
		.help = "the process, as well as without the option"},
	{'q', "quiet", .commands = PL_FOR_ALL, .section = PL_SECTION_GENERAL, .help = "say only what went wrong"},
	{'v', "verbose", .commands = PL_FOR_ALL, .section = PL_SECTION_GENERAL, .help = "say what is being done"},
	{'h', "help", .commands = PL_FOR_ALL, .section = PL_SECTION_GENERAL, .help = "show this and exit"},
	{'V', "version", .commands = PL_FOR_ALL, .section = PL_SECTION_GENERAL, .help = "show the version and exit"},
};
const size_t pl_option_count = sizeof(pl_option_table) / sizeof(pl_option_table[0]);

const struct pl_option *pl_option_by_id(int id)
{
	for (size_t i = 0; i < pl_option_count; i++)
		if (pl_option_table[i].id == id)
			return &pl_option_table[i];
	return NULL;
}

enum pl_command pl_command_by_name(const char *name)
{
	enum pl_command command = 0;

	while (command < PL_COMMAND_COUNT && strcmp(pl_command_table[command].name, name) != 0)
		command++;
	return command;
}
