/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_H
#define PYLEAK_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/landing.h"
#include "pyleak/probe.h"
#include "pyleak/resident.h"
#include "pyleak/trace.h"

/*
 * Planting a probe in a process, finding one that is there, and removing it with proof that no
 * thread is or will be in it. A hook is one aligned word of data; every prefix of the changes made
 * here is a valid state of the process, and one that pl_probe_detach() can undo.
 */

struct pl_probe {
	pid_t pid;
	uint64_t base;
	uint64_t mapped_size; /* what is mapped from base on */
	uint64_t tables, tables_mapped_size; /* what is mapped in the place for tables that goes with base; 0: nothing */
	bool filled;          /* the header has been written: header and hooks below are valid */
	struct pl_probe_header header;
	struct pl_probe_hook hooks[PL_PROBE_MAX_HOOKS];
	struct pl_probe_hook *words; /* [header.word_count], owned: see pl_probe_free() */
};

/* Forgets what was read of a probe; the probe stays as it is. One that is all zeros is allowed. */
void pl_probe_free(struct pl_probe *probe);

/* All hooks of a probe by number, those of the first page and the further ones. */
static inline uint32_t pl_probe_hook_count(const struct pl_probe *probe)
{
	return probe->header.hook_count + probe->header.word_count;
}
static inline const struct pl_probe_hook *pl_probe_hook(const struct pl_probe *probe, uint32_t i)
{
	return i < probe->header.hook_count ? &probe->hooks[i] : &probe->words[i - probe->header.hook_count];
}

/* Writes into a process that runs: what nobody looks at yet, or a word that may be seen in parts. 0 or -errno. */
int pl_probe_write(pid_t pid, uint64_t address, const void *bytes, size_t length);

/* Looks for a probe, complete or half planted, without touching the process; release *ret with
 * pl_probe_free(), also after a failure. 0, -ENOENT, -ESRCH, -ENOMEM, -EPROTO: one that another version
 * of pyleak planted. */
int pl_probe_find(pid_t pid, struct pl_probe *ret);
bool pl_probe_present(pid_t pid);
/* Whether it was planted to stay and records: not so in a forked child, whose probe is switched off,
 * nor if pyleak was killed before it was complete. */
bool pl_probe_is_kept(const struct pl_probe *probe);

/* One pyleak at a time plants in a process, or removes what a dead one left: to a second one, the
 * first one's probe would look like a leftover. Held until this process ends, however it ends, or
 * lets go of it; to claim again what is held is harmless. Any number of processes can be claimed. Only who may
 * trace the process can claim it. -EBUSY: another has it; -EPERM. */
int pl_probe_claim(pid_t pid);
/* The same, but waits so long for another one: whoever reads a probe has the claim for fractions of a second. */
int pl_probe_claim_within(pid_t pid, int64_t patience_ns);
/* Goes on beside whoever has it: the user says that it is none of ours. */
int pl_probe_claim_by_force(pid_t pid);
bool pl_probe_is_claimed_by_force(pid_t pid);
/* Of this very process: its number may be another's by now. 0: of whichever has it. */
void pl_probe_unclaim(pid_t pid, uint64_t start_time);
/* Who else has claimed it, by what the kernel says of locks; nothing is claimed for it. 0: nobody, or it is not to be
 * seen from here. */
pid_t pl_probe_claimant(pid_t pid);
void pl_probe_unclaim_all(void);

/* Where probes may be in a process with these mappings: at base + i × PL_PROBE_STRIDE, i < count. */
struct pl_probe_places {
	uint64_t base;
	unsigned int count;
};
static inline struct pl_probe_places pl_probe_places(const struct pl_maps *maps)
{
	return pl_maps_end(maps) > PL_PROBE_BASE ? (struct pl_probe_places){PL_PROBE_BASE, PL_PROBE_PLACES} :
						   (struct pl_probe_places){PL_PROBE_LOW_BASE, PL_PROBE_LOW_PLACES};
}

/* Where the tables of a probe at this base are. */
static inline uint64_t pl_probe_tables_place(uint64_t base)
{
	if (base < PL_PROBE_BASE)
		return PL_PROBE_LOW_TABLES_BASE + (base - PL_PROBE_LOW_BASE) / PL_PROBE_STRIDE * PL_PROBE_LOW_TABLES_STRIDE;
	return PL_PROBE_TABLES_BASE + (base - PL_PROBE_BASE) / PL_PROBE_STRIDE * PL_PROBE_TABLES_STRIDE;
}

/* A word of an object, or of the landing page (PL_PROBE_HOOK_GOT, _LOADED, _LANDING). */
struct pl_probe_word {
	uint64_t address, original; /* the word, and what it holds now */
	uint64_t entry;             /* an offset into the code; of PL_PROBE_HOOK_LOADED the address of the stub */
	uint32_t object;            /* pl_map_identity() of the mapping that it lies in, 0: not said */
	enum pl_probe_hook_kind kind;
};

/* What an engine wants planted. */
struct pl_probe_plan {
	enum pl_probe_engine engine;
	const uint8_t *image;   /* code_size bytes; its first PL_PROBE_CODE_OFFSET are overwritten */
	uint64_t code_size;
	uint64_t data_size;    /* behind the code; 0: the tables are all the data there is */
	uint64_t tables_size;  /* 0: none */
	uint64_t tables_kept;  /* the last so many bytes of them are not zeroed in a forked child */
	/* Called when it is known where everything will be, to complete `image`; may be NULL. */
	void (*fill)(void *context, uint8_t *image, uint64_t base, uint64_t tables);
	/* Called when every word leads to the probe, just before it is armed, by pl_probe_plant_running(); may be NULL. */
	void (*arming)(void *context);
	void *context;
	uint32_t armed_offset, armed_value;          /* into the data; what it is set to */
	uint32_t inside_words;                       /* 0: the engine uses marks only */
	uint64_t inside_offset;                      /* into the data */
	uint64_t mark;
	bool kept;                                   /* --keep: see struct pl_probe_header */
	/* Into the code: the routine for errands, and its end; into the tables: what it is told. 0: there is none. */
	uint32_t errand_entry_offset, errand_end_offset;
	uint64_t errand_offset;
	uint32_t scratch_offset;                     /* into the data: two struct pl_kernel_sigaction */
	uint32_t trap_handler_offset, restorer_offset; /* into the code; trap_handler_offset 0: none wanted */
	struct {
		uint64_t address, original;   /* the word, and what it holds now */
		uint32_t entry_offset;        /* into the code */
		enum pl_probe_hook_kind kind; /* if not a word, `bias` is the hook's `entry` */
		uint64_t bias;
	} hooks[PL_PROBE_MAX_HOOKS];
	uint32_t order[PL_PROBE_MAX_HOOKS]; /* hooks in the order in which they are redirected */
	uint32_t hook_count;
	/* Redirected after the hooks above, in this order. One that holds something else by then (it was
	 * bound, its object is gone) is left alone. The stubs that they lead to are there (landing.h). */
	const struct pl_probe_word *words;
	uint32_t word_count;
	struct pl_landing *landing; /* what is new in it is prepared first; NULL: none (pl_probe_plant_running() only) */
	uint32_t word_capacity; /* rows to make room for, for pl_probe_extend() too; 0: none */
};

/* Where a probe would be mapped: a place that is free for it and for its tables; 0: none. */
uint64_t pl_probe_place(const struct pl_maps *maps, uint64_t size, uint64_t tables_size);

/* Maps, fills, installs the SIGTRAP handler, arms, and redirects every word. All threads of the
 * tracee are stopped before and after. On failure what was done is undone. */
int pl_probe_plant(struct pl_tracee *tracee, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
		   const struct pl_probe_plan *plan, struct pl_probe *ret, struct pl_error *err);

/*
 * The same in a process that runs, of a probe with a routine for errands: pages mapped and filled, the words changed by one
 * thread after the other, and armed after the last. *ret_stop_ns (may be NULL): the longest time that a thread was held.
 * How each step is safe: see trace.h.
 */
int pl_probe_plant_running(pid_t pid, const struct pl_probe_plan *plan, struct pl_probe *ret, int64_t *ret_stop_ns,
			   struct pl_error *err);

/*
 * Redirects further words, of objects that were loaded since; the process runs.
 * The rows of objects that are gone are used again. *ret_redirected: how many of the words lead to us
 * now; the others hold something else already. -ENOSPC: the table is full, some were left alone.
 */
int pl_probe_extend(struct pl_probe *probe, struct pl_landing *landing, const struct pl_probe_word *words, uint32_t count,
		    uint32_t *ret_redirected, int64_t *ret_stop_ns);

/*
 * Changes words of the tables, which others may change too: those that hold what is expected, in their order, by one thread
 * that is held. `done`: it was changed. Who calls has the claim. *ret_stop_ns: for how long a thread was held at most.
 */
struct pl_probe_change {
	uint64_t address, expected, desired;
	bool done;
};
int pl_probe_change(const struct pl_probe *probe, struct pl_probe_change *changes, size_t count, int64_t *ret_stop_ns);

/*
 * Gives pages of the tables back to the system, which are zeros then and stay mapped: changes a word to what says so, and, if
 * that came about, gives back its pages, and changes the word once more. Between the two changes little time goes by.
 */
struct pl_probe_giving {
	struct pl_probe_change before, after;
	struct pl_range pages;
	bool given;
};
/* The same of pages that nobody will ever write to again. */
int pl_probe_drop(const struct pl_probe *probe, const struct pl_range *pages, size_t count, int64_t *ret_stop_ns);
int pl_probe_give_back(const struct pl_probe *probe, struct pl_probe_giving *items, size_t count, int64_t *ret_stop_ns);

/*
 * Removes a probe from a stopped tracee: puts every word back (copies of our entries that another
 * hook saved in static data too), disarms, and waits until all of this holds for every thread: no
 * register and no pending signal frame points into the code, and no thread will return into it.
 * Then the SIGTRAP action is restored and the pages are unmapped. The tracee is let go for moments
 * in between, for `patience_ns` at most; a process that runs (pl_probe_detach()) is waited for so long at each step.
 * -EAGAIN: it could not be proven; -EBUSY: another hook sits on top of ours: a pass-through stays behind,
 * err says so, and a later call can finish. The tracee is stopped when this returns.
 */
int pl_probe_remove(struct pl_tracee *tracee, const struct pl_probe *probe, int64_t patience_ns, struct pl_error *err);

/* From now on the entries pass through and nothing is recorded: one word in the probe's data is written, without a stop.
 * What was recorded stays to be read. 0 or -errno; the process is the one that the probe was found in, says the caller. */
int pl_probe_disarm(const struct pl_probe *probe);

/*
 * Why a probe could not be removed: the thread that was not seen outside at last, and what kept it. Where objects lead a
 * thread back, the thread is the one that has one in hand, if it was found.
 */
enum pl_probe_stay {
	PL_PROBE_STAY_NOT_SAID, /* no thread could be held to carry a call */
	PL_PROBE_STAY_CODE,     /* it is at an instruction of the probe, or has the address of one in a register */
	PL_PROBE_STAY_CALL,     /* an original function that the probe has called for it has not returned */
	PL_PROBE_STAY_SIGNAL,   /* the handler of a signal, which has not returned, interrupted it in the probe */
	PL_PROBE_STAY_OBJECTS,  /* an object's deallocator was entered through the probe, and will be left through it */
	PL_PROBE_STAY_UNSEEN,   /* it runs, or would, and did not come to a stop; or waits where none can be made */
	PL_PROBE_STAY_STACK,    /* it runs on one stack after the other, each newer than the last look */
	PL_PROBE_STAY_TRACED,   /* somebody else traces it */
};
struct pl_probe_left {
	enum pl_probe_stay stay;
	pid_t tid;        /* 0: none */
	uint64_t where;   /* the address that shows it: on a stack, or in the probe; 0: none */
	uint32_t objects; /* on their way, if that is the reason */
};
/*
 * Who is inside of a probe that is to be removed at this moment, told of threads that sleep, and without touching any of
 * them. Whose probe still records is asked in vain: everybody comes and goes. 0; -ENOENT: nobody is seen in it.
 */
int pl_probe_who_stays(const struct pl_probe *probe, struct pl_probe_left *ret);
/* One clause: "thread 12 (name) is …". At most `size` bytes. */
void pl_probe_describe_stay(pid_t pid, const struct pl_probe_left *left, char *text, size_t size);

/* Find, seize, remove, let go. 0 also if there is nothing to remove (*ret_found says). *ret_stop_ns
 * (may be NULL) is the longest time that the process was held. */
int pl_probe_detach(pid_t pid, int64_t patience_ns, bool *ret_found, int64_t *ret_stop_ns, struct pl_error *err);

/* Whether the stopped threads could be in the probe now or later (exposed for its test). */
bool pl_probe_quiescent(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps);

#define PL_GUARDIAN_NAME "pyleak-guardian" /* of the process, as the kernel has it */
/*
 * The guardian: a process of our own, in a session of its own, that waits for this one to end. If
 * it ends without pl_guardian_dismiss(), the guardian removes what was left in every process that it
 * was given, and ends. The first process starts it; give it each one before that one is touched.
 * To be dismissed while a probe that was not to stay is still in one of them leaves that one to it: it goes on trying
 * until the probe or the process is gone. 0 or -errno. PYLEAK_GUARDIAN=off (tests) starts none.
 */
int pl_guardian_add(pid_t pid, uint64_t start_time);
/* Starts it before there is a process to name: its pid, or 0. */
pid_t pl_guardian_start(void);
void pl_guardian_dismiss(void);

#endif
