/* SPDX-License-Identifier: MIT */
#include "holding.h"

#include <errno.h>
#include <time.h>

#include "heap_stop.h"
#include "pyleak/cleanup.h"
#include "pyleak/units.h"
#include "stop.h"

enum { LOOKS_MAX = 6 };

struct pl_holders_options pl_holding_wanted(const struct pl_options *options, FILE *out, struct pl_held_tree *tree)
{
	const bool pictures = options->format == PL_FORMAT_HTML || options->format == PL_FORMAT_FOLDED || options->format == PL_FORMAT_PPROF;

	return (struct pl_holders_options){
		.limit = options->limit,
		.type = options->type,
		.tree = pictures ? tree : NULL,
		.snapshot = options->format == PL_FORMAT_HEAPSNAPSHOT ? out : NULL,
	};
}

static int copy(const struct pl_holding *of, struct pl_heap_copy **ret, int64_t *ret_stop_ns, struct pl_error *err)
{
	struct heap_stop stop = {.pid = of->pid, .most_ns = of->max_stop_ns};
	int code = pl_heap_copy_prepare(of->python, ret, &stop.expected_ns, err);

	if (code == 0)
		code = heap_stop_copy(&stop, *ret, err);
	*ret_stop_ns = stop.took_ns;
	return code;
}

int pl_holding_find(const struct pl_holding *of, const struct pl_holders_options *wanted,
	struct pl_holders *ret, int64_t *longest_ns, struct pl_error *err)
{
	struct pl_heap_copy *heap = NULL;
	int64_t stop_ns = 0;
	int code = -EAGAIN;

	for (int look = 1; code == -EAGAIN && look <= LOOKS_MAX; look++) {
		*err = (struct pl_error){ 0 };
		pl_heap_copy_free(PL_TAKE(heap));
		code = copy(of, &heap, &stop_ns, err);
		if (stop_ns > *longest_ns)
			*longest_ns = stop_ns;
		if (code == 0 && look == LOOKS_MAX)
			pl_heap_copy_accept(heap);
		if (code == 0)
			code = pl_holders_find(heap, wanted, ret, err);
	}
	if (code == 0 && of->found)
		code = of->found(of->context, heap, stop_ns, err);
	pl_heap_copy_free(heap);
	return code;
}

/* Until so much time has passed, or it is to end. */
static void wait_for(int64_t ns)
{
	int64_t end = pl_now_ns() + ns;

	while (!*pl_stop_flag() && pl_now_ns() < end) {
		const struct timespec pause = { .tv_nsec = 20 * PL_NSEC_PER_MSEC };

		(void)nanosleep(&pause, NULL);
	}
}

int pl_holding_growth(const struct pl_holding *of, int64_t interval_ns, size_t limit, struct pl_holders *ret,
	int64_t *longest_ns, struct pl_error *err)
{
	const struct pl_holders_options all = { 0 };
	struct pl_holders before = { 0 };
	int code = pl_holding_find(of, &all, &before, longest_ns, err);

	if (code == 0) {
		wait_for(interval_ns);
		code = pl_holding_find(of, &all, ret, longest_ns, err);
	}
	if (code == 0)
		pl_holders_compare(&before, ret, limit);
	pl_holders_free(&before);
	return code;
}
