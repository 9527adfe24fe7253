/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "decode.h"
#include "pyleak/arch.h"

/*
 * A small evaluator of straight code, as x86_64/disassemble.c: registers that are known or not, one remembered
 * comparison, and both ways of every branch whose condition is not known. Nothing is executed and nothing is stored; a
 * load gives what the tracee holds at that moment. Whatever is not understood makes the register that it may write
 * unknown. A reference is a load from a known address: adrp and add make an address that may be anything.
 */

enum { REGISTERS = 31, INSTRUCTIONS_MAX = 512, PENDING_MAX = 32, WINDOW_WORDS = 64, ZERO = 31 };

struct value {
	bool known;
	uint64_t bits;
};

struct state {
	uint64_t ip;
	struct value registers[REGISTERS];
	bool compared;
	uint64_t left, right;
	unsigned int compared_bits;
	uint64_t x0_loaded_from; /* 0: x0 is not simply a loaded word */
};

enum verdict { GO_ON, STOP };

struct walk {
	pl_arch_read read;
	pl_arch_is_data is_data;
	void *context;
	bool both_ways; /* take no branch for decided, even if its condition is known */
	enum verdict (*reference)(struct walk *walk, uint64_t address);
	enum verdict (*returned)(struct walk *walk, const struct state *state);
	uint64_t *found;
	size_t found_max, found_count;

	uint32_t window[WINDOW_WORDS];
	uint64_t window_start;
	size_t window_count;
	struct state pending[PENDING_MAX];
	size_t pending_count;
	uint64_t visited[INSTRUCTIONS_MAX];
	size_t visited_count;
};

static struct value get(const struct state *state, uint32_t number)
{
	return number < REGISTERS ? state->registers[number] : (struct value){.known = false};
}

/* Register 31 is zero here. */
static struct value get_or_zero(const struct state *state, uint32_t number)
{
	return number == ZERO ? (struct value){.known = true} : get(state, number);
}

static void set(struct state *state, uint32_t number, struct value value, bool wide)
{
	if (number >= REGISTERS)
		return;
	if (number == 0)
		state->x0_loaded_from = 0;
	state->registers[number] = (struct value){value.known, wide ? value.bits : (uint32_t)value.bits};
}

static void forget(struct state *state, uint32_t number)
{
	set(state, number, (struct value){.known = false}, true);
}

static void forget_call_clobbered(struct state *state)
{
	for (uint32_t i = 0; i <= 18; i++)
		forget(state, i);
	forget(state, 30);
	state->compared = false;
}

static bool fetch(struct walk *walk, uint64_t ip, uint32_t *ret)
{
	uint64_t offset = ip - walk->window_start;

	if (ip & 3)
		return false;
	if (offset / 4 >= walk->window_count) {
		/* Code may end close to the end of a mapping: then less than a window can be read. */
		walk->window_start = ip;
		for (walk->window_count = WINDOW_WORDS; walk->window_count; walk->window_count /= 2)
			if (walk->read(walk->context, ip, walk->window, 4 * walk->window_count) == 0)
				break;
		offset = 0;
	}
	if (!walk->window_count)
		return false;
	*ret = walk->window[offset / 4];
	return true;
}

static bool visit(struct walk *walk, uint64_t ip)
{
	if (walk->visited_count == INSTRUCTIONS_MAX)
		return false;
	for (size_t i = 0; i < walk->visited_count; i++)
		if (walk->visited[i] == ip)
			return false;
	walk->visited[walk->visited_count++] = ip;
	return true;
}

/* The words that an instruction loads from known addresses, and into which registers (ZERO: none that is followed). */
struct load {
	uint64_t address;
	uint32_t target;
	bool wide;
};
static size_t loads(const struct state *state, uint32_t i, struct load loads[4])
{
	struct value base = get(state, field_rn(i)), index = get(state, field_rm(i));

	if (is_ldr_reg64(i) && (i >> 13 & 7) == 3 && base.known && index.known) {
		loads[0] = (struct load){base.bits + (index.bits << (i >> 12 & 1 ? 3 : 0)), field_rd(i), true};
		return 1;
	}
	if (!base.known)
		return 0;
	if (is_ldr_imm64(i)) {
		loads[0] = (struct load){base.bits + ldr_imm64_offset(i), field_rd(i), true};
		return 1;
	}
	if (is_ldr_imm32(i)) {
		loads[0] = (struct load){base.bits + ldr_imm32_offset(i), field_rd(i), false};
		return 1;
	}
	if (is_ldp64(i)) {
		loads[0] = (struct load){base.bits + (uint64_t)ldp_offset(i, 8), field_rd(i), true};
		loads[1] = (struct load){loads[0].address + 8, field_rt2(i), true};
		return 2;
	}
	if (is_ldr_imm128(i) || is_ldp128(i)) {
		size_t words = is_ldp128(i) ? 4 : 2;

		for (size_t n = 0; n < words; n++)
			loads[n] = (struct load){base.bits + 8 * n +
					(is_ldp128(i) ? (uint64_t)ldp_offset(i, 16) : ldr_imm128_offset(i)), ZERO, true};
		return words;
	}
	return 0;
}

static void compute(struct walk *walk, struct state *state, uint32_t i, uint64_t ip)
{
	bool wide = i >> 31;
	struct value n = get(state, field_rn(i)), m = get_or_zero(state, field_rm(i));
	struct load words[4];
	size_t count = loads(state, i, words);

	if (is_adrp(i)) {
		set(state, field_rd(i), (struct value){true, adrp_target(i, ip)}, true);
	} else if (is_adr(i)) {
		set(state, field_rd(i), (struct value){true, ip + (uint64_t)adr_distance(i)}, true);
	} else if (is_add_imm(i)) {
		set(state, field_rd(i), (struct value){n.known, n.bits + add_imm_value(i)}, wide);
	} else if (is_sub_imm(i)) {
		set(state, field_rd(i), (struct value){n.known, n.bits - add_imm_value(i)}, wide);
	} else if (is_add_reg(i) && !(i >> 10 & 63)) {
		n = get_or_zero(state, field_rn(i));
		set(state, field_rd(i), (struct value){n.known && m.known, n.bits + m.bits}, wide);
	} else if (is_mov_reg(i)) {
		set(state, field_rd(i), m, wide);
	} else if (is_movz(i)) {
		set(state, field_rd(i), (struct value){true, mov_value(i)}, wide);
	} else if (is_movn(i)) {
		set(state, field_rd(i), (struct value){true, ~mov_value(i)}, wide);
	} else if (is_movk(i)) {
		struct value old = get(state, field_rd(i));

		old.bits = (old.bits & ~(UINT64_C(0xffff) << mov_shift(i))) | mov_value(i);
		set(state, field_rd(i), old, wide);
	} else if (is_subs_imm(i) || is_subs_reg(i)) {
		struct value right = is_subs_imm(i) ? (struct value){true, add_imm_value(i)} : m;

		if (is_subs_reg(i))
			n = get_or_zero(state, field_rn(i));
		state->compared = n.known && right.known;
		state->compared_bits = wide ? 64 : 32;
		state->left = n.bits;
		state->right = right.bits;
		if (field_rd(i) != ZERO)
			forget(state, field_rd(i));
	} else if (count) {
		uint64_t from = count == 1 && words[0].wide ? words[0].address : 0;

		for (size_t k = 0; k < count; k++) {
			struct value value = {.bits = 0};

			if (words[k].target == ZERO)
				continue;
			value.known = walk->read(walk->context, words[k].address, &value.bits, words[k].wide ? 8 : 4) == 0;
			set(state, words[k].target, value, true);
		}
		if (from && words[0].target == 0)
			state->x0_loaded_from = from;
	} else {
		/* The register that it writes, if it writes any; a base that is written back; the second of a pair. */
		forget(state, field_rd(i));
		if (is_memory(i)) {
			forget(state, field_rt2(i));
			if ((i & 0x3b200c00) == 0x38000400 || (i & 0x3b200c00) == 0x38000c00 || (i & 0x3a800000) == 0x28800000)
				forget(state, field_rn(i));
		}
		/* Anything else that sets the flags: data processing with its bit 29. */
		if ((i & 0x1f000000) == 0x0a000000 || (i & 0x1f000000) == 0x0b000000 || (i & 0x1e000000) == 0x1a000000 ||
			(i & 0x1f800000) == 0x12000000 || (i & 0x1f800000) == 0x11000000)
			state->compared = state->compared && !(i >> 29 & 1);
	}
}

static bool condition(const struct state *state, uint32_t code, bool *ret_known)
{
	unsigned int shift = state->compared ? 64 - state->compared_bits : 0;
	uint64_t left = state->left << shift, right = state->right << shift;
	bool result;

	*ret_known = state->compared;
	switch (code >> 1) {
	case 0: result = left == right; break;
	case 1: result = left >= right; break;
	case 2: result = (left - right) >> 63; break;
	case 4: result = left > right; break;
	case 5: result = (int64_t)left >= (int64_t)right; break;
	case 6: result = (int64_t)left > (int64_t)right; break;
	case 7: *ret_known = true; return true;
	default: *ret_known = false; return false;
	}
	return code & 1 ? !result : result;
}

/* Whether it is a branch that may go on behind itself: where to, and whether it is taken. */
static bool conditional(const struct state *state, uint32_t i, uint64_t ip, uint64_t *ret_target, bool *ret_taken,
	bool *ret_known)
{
	struct value value = get_or_zero(state, field_rd(i));

	if (is_b_cond(i)) {
		*ret_target = ip + (uint64_t)b_cond_distance(i);
		*ret_taken = condition(state, i & 15, ret_known);
	} else if (is_cbz(i)) {
		*ret_target = ip + (uint64_t)b_cond_distance(i);
		*ret_known = value.known;
		*ret_taken = ((i >> 31 ? value.bits : (uint32_t)value.bits) == 0) != (i >> 24 & 1);
	} else if (is_tbz(i)) {
		*ret_target = ip + (uint64_t)tbz_distance(i);
		*ret_known = value.known;
		*ret_taken = (value.bits >> tbz_bit(i) & 1) == (i >> 24 & 1);
	} else {
		return false;
	}
	return true;
}

/* One way through the function; other ways are left in walk->pending. */
static enum verdict follow(struct walk *walk, struct state *state)
{
	uint32_t i;

	while (visit(walk, state->ip) && fetch(walk, state->ip, &i)) {
		uint64_t next = state->ip + 4, target = 0;
		bool taken = false, known = false;
		struct load words[4];
		size_t count = loads(state, i, words);

		for (size_t k = 0; k < count; k++)
			if (walk->is_data(walk->context, words[k].address) && walk->reference(walk, words[k].address) == STOP)
				return STOP;
		if (is_ret(i))
			return walk->returned ? walk->returned(walk, state) : GO_ON;
		if (is_bl(i) || is_blr(i)) {
			forget_call_clobbered(state);
		} else if (is_b(i)) {
			next = state->ip + (uint64_t)b_distance(i);
		} else if (is_br(i)) {
			struct value to = get(state, field_rn(i));

			/* A tail call, or a switch. */
			if (!to.known || walk->both_ways)
				return GO_ON;
			next = to.bits;
		} else if (conditional(state, i, state->ip, &target, &taken, &known)) {
			if (known && !walk->both_ways) {
				next = taken ? target : next;
			} else if (walk->pending_count < PENDING_MAX) {
				walk->pending[walk->pending_count] = *state;
				walk->pending[walk->pending_count++].ip = target;
			}
		} else {
			compute(walk, state, i, state->ip);
		}
		state->ip = next;
	}
	return GO_ON;
}

static void walk_function(struct walk *walk, const struct state *start)
{
	walk->pending[walk->pending_count++] = *start;
	while (walk->pending_count) {
		struct state state = walk->pending[--walk->pending_count];

		if (follow(walk, &state) == STOP)
			break;
	}
}

static enum verdict stop_at_first(struct walk *walk, uint64_t address)
{
	walk->found[0] = address;
	walk->found_count = 1;
	return STOP;
}

static enum verdict collect(struct walk *walk, uint64_t address)
{
	for (size_t i = 0; i < walk->found_count; i++)
		if (walk->found[i] == address)
			return GO_ON;
	walk->found[walk->found_count++] = address;
	return walk->found_count == walk->found_max ? STOP : GO_ON;
}

int pl_arch_walk_get_allocator(uint64_t function, int domain, pl_arch_read read, pl_arch_is_data is_data, void *context,
	uint64_t *ret_table)
{
	struct walk walk = {.read = read, .is_data = is_data, .context = context, .reference = stop_at_first,
		.found = ret_table, .found_max = 1};
	struct state start = {.ip = function};

	set(&start, 0, (struct value){true, (uint64_t)domain}, false);
	walk_function(&walk, &start);
	return walk.found_count ? 0 : -ENOENT;
}

int pl_arch_data_references(uint64_t function, pl_arch_read read, pl_arch_is_data is_data, void *context,
	uint64_t *found, size_t max, size_t *ret_count)
{
	struct walk walk = {.read = read, .is_data = is_data, .context = context, .reference = collect, .both_ways = true,
		.found = found, .found_max = max};
	struct state start = {.ip = function};

	if (max)
		walk_function(&walk, &start);
	*ret_count = walk.found_count;
	return 0;
}

static bool nothing_is_data(void *context, uint64_t address)
{
	return false;
}

static enum verdict note_loaded_word(struct walk *walk, const struct state *state)
{
	if (state->x0_loaded_from) {
		walk->found[0] = state->x0_loaded_from;
		walk->found_count = 1;
	}
	return STOP;
}

int pl_arch_loaded_word(uint64_t function, pl_arch_read read, void *context, uint64_t *ret_address)
{
	struct walk walk = {.read = read, .is_data = nothing_is_data, .context = context, .reference = collect,
		.returned = note_loaded_word, .found = ret_address, .found_max = 1};
	struct state start = {.ip = function};

	walk_function(&walk, &start);
	return walk.found_count ? 0 : -ENOENT;
}

bool pl_arch_loads_once(uint64_t function, pl_arch_read read, void *context, uint64_t word, uint64_t base)
{
	enum { SPAN = 64 };
	struct state state = {.ip = function};
	struct walk walk = {.read = read, .context = context};
	uint32_t i;
	int count = 0;

	/* As it stands, up to the jump or the call through a register; `base` may come from anywhere. */
	for (int steps = 0; steps < SPAN && fetch(&walk, state.ip, &i); steps++, state.ip += 4) {
		struct load words[4];
		size_t found = loads(&state, i, words);
		bool by_base = (is_ldr_imm64(i) && base + ldr_imm64_offset(i) == word);

		if (is_br(i) || is_blr(i))
			return count == 1;
		for (size_t k = 0; k < found; k++)
			by_base |= words[k].address == word;
		count += by_base;
		if (by_base && !is_ldr_imm64(i))
			return false;
		compute(&walk, &state, i, state.ip);
	}
	return false;
}
