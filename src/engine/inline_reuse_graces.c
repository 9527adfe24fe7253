/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inline_reuse.h"
#include "pyleak/cleanup.h"
#include "pyleak/resident.h"
#include "pyleak/units.h"

/* Where there is no membarrier() (a sandbox, a kernel with processors of its own): a store leaves its processor's buffer
 * within microseconds, or with the interrupt that takes the thread off it. */
#define BUFFERS_NSEC (20 * PL_NSEC_PER_MSEC)
#define POLL_NSEC (PL_NSEC_PER_MSEC / 2)
enum { AT_ONCE = 16 };

static uint64_t slot_at(const struct pl_inline_config *config, uint32_t number)
{
	return config->slots + number * config->slot_stride;
}

static int look(struct inline_slots *slots)
{
	pl_autoclose int fd = pl_resident_open(slots->memory->pid);

	slots->count = 0;
	for (uint32_t i = 0; i <= slots->config->slot_count; i++) {
		const uint64_t at = slot_at(slots->config, i);
		uint8_t page = PL_RESIDENT;

		/* What was never touched need not be read, which would make page tables for it. */
		if (fd >= 0 && pl_resident_pages(fd, (struct pl_range){at, at + PL_PAGE}, &page) < 0)
			return -ESRCH;
		if (page)
			slots->used[slots->count++] = i;
	}
	return 0;
}

int inline_slots_look(struct inline_slots *slots, struct inline_memory *memory, const struct pl_inline_config *config)
{
	*slots = (struct inline_slots){.memory = memory, .config = config, .used = calloc(1 + config->slot_count, sizeof(uint32_t))};
	return slots->used ? look(slots) : -ENOMEM;
}

void inline_slots_free(struct inline_slots *slots)
{
	free(PL_TAKE(slots->used));
	slots->count = 0;
}

static void barrier(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		pl_sleep_ns(BUFFERS_NSEC);
}

/* A thread that died in a hook (by pthread_exit() or a system call of its own) has left its words there, and does nothing any
 * more. The kernel clears the C library's word with a thread's name when the thread can run no more of the program
 * (CLONE_CHILD_CLEARTID), and the C library unmaps its descriptor later than that, if it does. */
static bool is_dead(const struct inline_slots *slots, uint64_t owner)
{
	int32_t tid;

	if (!owner || !slots->config->thread_tid)
		return false;
	return inline_memory_read(slots->memory, owner + (uint64_t)slots->config->thread_tid, &tid, sizeof(tid)) < 0 || tid <= 0;
}

/* Whether the thread of the slot was seen outside, or dead; < 0: it cannot be read. */
static int is_outside(const struct inline_slots *slots, uint32_t number)
{
	struct pl_inline_slot *slot;
	union {
		uint64_t words[offsetof(struct pl_inline_slot, generation) / 8];
		uint8_t bytes[offsetof(struct pl_inline_slot, generation)];
	} head;
	const size_t outer = offsetof(struct pl_inline_slot, outer) / 8, busy = offsetof(struct pl_inline_slot, busy) / 8;

	_Static_assert(offsetof(struct pl_inline_slot, busy) + sizeof(slot->busy) <= sizeof(head), "both are in the head");
	for (int i = 0; i < AT_ONCE; i++) {
		if (inline_memory_read(slots->memory, slot_at(slots->config, number), head.bytes, sizeof(head.bytes)) < 0)
			return -EFAULT;
		if (!head.words[outer] && !head.words[busy])
			return 1;
	}
	return is_dead(slots, head.words[offsetof(struct pl_inline_slot, owner) / 8]);
}

static int nobody_without_slot(const struct inline_slots *slots)
{
	uint64_t slotless;

	for (int i = 0; i < AT_ONCE; i++) {
		if (inline_memory_read(slots->memory, slots->config->control + offsetof(struct pl_inline_control, slotless),
			    &slotless, sizeof(slotless)) < 0)
			return -EFAULT;
		if (!slotless)
			return 1;
	}
	return 0;
}

int inline_slots_grace(struct inline_slots *slots, int64_t deadline_ns)
{
	pl_autofree uint32_t *left = calloc(1 + slots->config->slot_count, sizeof(*left));
	bool counted = true;
	size_t count = 0;
	int code;

	if (!left)
		return -ENOMEM;
	barrier();
	/* Whoever takes a slot from now on is behind the barrier. */
	code = look(slots);
	if (code < 0)
		return code;
	for (size_t i = 0; i < slots->count; i++)
		left[count++] = slots->used[i];
	for (;;) {
		size_t still = 0;
		int outside = counted ? nobody_without_slot(slots) : 1;

		if (outside < 0)
			return outside;
		counted = !outside;
		for (size_t i = 0; i < count; i++) {
			outside = is_outside(slots, left[i]);
			if (outside < 0)
				return outside;
			if (!outside)
				left[still++] = left[i];
		}
		count = still;
		if (!count && !counted)
			return 0;
		if (pl_now_ns() >= deadline_ns)
			return -EAGAIN;
		pl_sleep_ns(POLL_NSEC);
	}
}

int inline_slots_forget(struct inline_slots *slots, const uint8_t *wanted, uint64_t count)
{
	static const uint8_t nobody = PL_INLINE_CODE_NOBODY;
	const size_t size = sizeof(((struct pl_inline_slot *)NULL)->top);
	const struct pl_inline_top *all;
	pl_autofree uint8_t *top = malloc(size);
	int found = 0;

	if (!top)
		return -ENOMEM;
	all = (const void *)top;
	for (size_t i = 0; i < slots->count; i++) {
		const uint64_t at = slot_at(slots->config, slots->used[i]) + offsetof(struct pl_inline_slot, top);

		if (inline_memory_read(slots->memory, at, top, size) < 0)
			return -EFAULT;
		for (size_t k = 0; k < size / sizeof(*all); k++) {
			const uint64_t site = all[k].key & (((uint64_t)1 << PL_INLINE_TOP_KEY_SHIFT) - 1);

			if (site >= count || !wanted[site] || all[k].code >> 56)
				continue;
			if (inline_memory_write(slots->memory, at + k * sizeof(*all) + offsetof(struct pl_inline_top, code) + 7,
				    &nobody, sizeof(nobody)) < 0)
				return -EFAULT;
			found++;
		}
	}
	return found;
}

int inline_slots_forget_lost(struct inline_slots *slots)
{
	static const uint8_t nobody = PL_INLINE_CODE_NOBODY;
	const size_t size = sizeof(((struct pl_inline_slot *)NULL)->seen);
	pl_autofree struct pl_inline_seen *seen = malloc(size);

	if (!seen)
		return -ENOMEM;
	for (size_t i = 0; i < slots->count; i++) {
		const uint64_t at = slot_at(slots->config, slots->used[i]) + offsetof(struct pl_inline_slot, seen);

		if (inline_memory_read(slots->memory, at, seen, size) < 0)
			return -EFAULT;
		for (size_t k = 0; k < size / sizeof(*seen); k++)
			if (!(seen[k].code >> 56) && pl_inline_frame_code(seen[k].word) == PL_INLINE_CODE_LOST &&
				inline_memory_write(slots->memory, at + k * sizeof(*seen) + offsetof(struct pl_inline_seen, code) + 7,
					&nobody, sizeof(nobody)) < 0)
				return -EFAULT;
	}
	return 0;
}

int inline_slots_keep_last(struct inline_slots *slots, uint8_t *wanted, uint64_t count)
{
	for (size_t i = 0; i < slots->count; i++) {
		uint64_t site;

		if (inline_memory_read(slots->memory,
			    slot_at(slots->config, slots->used[i]) + offsetof(struct pl_inline_slot, last_site), &site,
			    sizeof(site)) < 0)
			return -EFAULT;
		if (site < count)
			wanted[site] = 0;
	}
	return 0;
}
