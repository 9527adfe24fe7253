/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <capstone/capstone.h>

#include "pyleak/arch.h"

/*
 * A small evaluator of straight code: sixteen registers that are known or not, one remembered
 * comparison, and both ways of every branch whose condition is not known. Nothing is executed and
 * nothing is stored; a load gives what the tracee holds at that moment (which is how addresses
 * come out of its GOT). It is meant for functions of some dozen instructions, hot path and
 * .text.unlikely alike, so everything has a small bound.
 */

enum {
	REGISTERS = 16,
	INSTRUCTIONS_MAX = 512,
	PENDING_MAX = 32,
	WINDOW = 256,
	INSTRUCTION_MAX = 15, /* bytes, by the architecture */
};

struct value {
	bool known;
	uint64_t bits;
};

struct state {
	uint64_t ip;
	struct value registers[REGISTERS];
	bool compared, compared_by_test;
	uint64_t left, right;
	unsigned int compared_bits;
	uint64_t rax_loaded_from; /* 0: rax is not simply a loaded word */
};

/* What a reference leads to. */
enum verdict { GO_ON, STOP };

struct walk {
	csh handle;
	cs_insn *insn;
	pl_arch_read read;
	pl_arch_is_data is_data;
	void *context;
	bool both_ways; /* take no branch for decided, even if its condition is known */
	enum verdict (*reference)(struct walk *walk, uint64_t address);
	enum verdict (*returned)(struct walk *walk, const struct state *state);
	uint64_t *found;
	size_t found_max, found_count;

	uint8_t window[WINDOW];
	uint64_t window_start;
	size_t window_size;
	struct state pending[PENDING_MAX];
	size_t pending_count;
	uint64_t visited[INSTRUCTIONS_MAX];
	size_t visited_count;
};

/* Encodings of the general registers, in capstone's names. */
static int register_index(x86_reg reg, unsigned int *ret_bits)
{
	static const x86_reg wide[REGISTERS] = { X86_REG_RAX, X86_REG_RCX, X86_REG_RDX, X86_REG_RBX, X86_REG_RSP,
		X86_REG_RBP, X86_REG_RSI, X86_REG_RDI, X86_REG_R8, X86_REG_R9, X86_REG_R10, X86_REG_R11, X86_REG_R12,
		X86_REG_R13, X86_REG_R14, X86_REG_R15 };
	static const x86_reg half[REGISTERS] = { X86_REG_EAX, X86_REG_ECX, X86_REG_EDX, X86_REG_EBX, X86_REG_ESP,
		X86_REG_EBP, X86_REG_ESI, X86_REG_EDI, X86_REG_R8D, X86_REG_R9D, X86_REG_R10D, X86_REG_R11D,
		X86_REG_R12D, X86_REG_R13D, X86_REG_R14D, X86_REG_R15D };
	static const x86_reg small[REGISTERS] = { X86_REG_AX, X86_REG_CX, X86_REG_DX, X86_REG_BX, X86_REG_SP,
		X86_REG_BP, X86_REG_SI, X86_REG_DI, X86_REG_R8W, X86_REG_R9W, X86_REG_R10W, X86_REG_R11W,
		X86_REG_R12W, X86_REG_R13W, X86_REG_R14W, X86_REG_R15W };
	static const x86_reg byte[REGISTERS] = { X86_REG_AL, X86_REG_CL, X86_REG_DL, X86_REG_BL, X86_REG_SPL,
		X86_REG_BPL, X86_REG_SIL, X86_REG_DIL, X86_REG_R8B, X86_REG_R9B, X86_REG_R10B, X86_REG_R11B,
		X86_REG_R12B, X86_REG_R13B, X86_REG_R14B, X86_REG_R15B };
	static const struct {
		const x86_reg *names;
		unsigned int bits;
	} sets[] = { { wide, 64 }, { half, 32 }, { small, 16 }, { byte, 8 } };

	for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++)
		for (int i = 0; i < REGISTERS; i++)
			if (sets[s].names[i] == reg) {
				*ret_bits = sets[s].bits;
				return i;
			}
	return -1;
}

static uint64_t truncate_bits(uint64_t value, unsigned int bits)
{
	return bits >= 64 ? value : value & ((UINT64_C(1) << bits) - 1);
}

static void set_register(struct state *state, x86_reg reg, bool known, uint64_t bits)
{
	unsigned int width;
	int index = register_index(reg, &width);

	if (index < 0)
		return;
	if (index == 0)
		state->rax_loaded_from = 0;
	/* A write of 32 bits clears the upper half; narrower ones keep it and are not followed. */
	state->registers[index].known = known && width >= 32;
	state->registers[index].bits = truncate_bits(bits, width);
}

static bool operand_address(const struct state *state, const cs_insn *insn, const cs_x86_op *operand, uint64_t *ret)
{
	const x86_op_mem *mem = &operand->mem;
	uint64_t address = (uint64_t)mem->disp;
	unsigned int bits;
	int index;

	if (mem->segment == X86_REG_FS || mem->segment == X86_REG_GS)
		return false;
	if (mem->base == X86_REG_RIP) {
		address += insn->address + insn->size;
	} else if (mem->base != X86_REG_INVALID) {
		index = register_index(mem->base, &bits);
		if (index < 0 || bits != 64 || !state->registers[index].known)
			return false;
		address += state->registers[index].bits;
	}
	if (mem->index != X86_REG_INVALID) {
		index = register_index(mem->index, &bits);
		if (index < 0 || bits != 64 || !state->registers[index].known)
			return false;
		address += state->registers[index].bits * (uint64_t)mem->scale;
	}
	*ret = address;
	return true;
}

static bool operand_value(struct walk *walk, const struct state *state, const cs_x86_op *operand, uint64_t *ret)
{
	unsigned int bits;
	uint64_t address;
	int index;

	switch (operand->type) {
	case X86_OP_IMM:
		*ret = truncate_bits((uint64_t)operand->imm, operand->size * 8U);
		return true;
	case X86_OP_REG:
		index = register_index(operand->reg, &bits);
		if (index < 0 || !state->registers[index].known)
			return false;
		*ret = truncate_bits(state->registers[index].bits, bits);
		return true;
	case X86_OP_MEM:
		if (operand->size > 8 || !operand_address(state, walk->insn, operand, &address))
			return false;
		*ret = 0;
		return walk->read(walk->context, address, ret, operand->size) == 0;
	default:
		return false;
	}
}

static void forget_written(struct walk *walk, struct state *state)
{
	cs_regs read_regs, written;
	uint8_t read_count, written_count;

	if (cs_regs_access(walk->handle, walk->insn, read_regs, &read_count, written, &written_count))
		return;
	for (uint8_t i = 0; i < written_count; i++) {
		if (written[i] == X86_REG_EFLAGS)
			state->compared = false;
		else
			set_register(state, (x86_reg)written[i], false, 0);
	}
}

/* What the System V ABI lets a called function change. */
static void forget_call_clobbered(struct state *state)
{
	static const x86_reg clobbered[] = { X86_REG_RAX, X86_REG_RCX, X86_REG_RDX, X86_REG_RSI, X86_REG_RDI,
		X86_REG_R8, X86_REG_R9, X86_REG_R10, X86_REG_R11 };

	for (size_t i = 0; i < sizeof(clobbered) / sizeof(clobbered[0]); i++)
		set_register(state, clobbered[i], false, 0);
	state->compared = false;
}

/* Whether a conditional jump is taken; *ret_known is false if that cannot be said. */
static bool branch_taken(const struct state *state, unsigned int id, bool *ret_known)
{
	unsigned int shift = state->compared ? 64 - state->compared_bits : 0;
	uint64_t left = state->left << shift, right = state->right << shift;
	bool test = state->compared_by_test;
	uint64_t result = test ? left & right : left - right;
	bool zero = result == 0, sign = result >> 63;
	bool below = !test && left < right;
	bool less = test ? sign : (int64_t)left < (int64_t)right;

	*ret_known = state->compared;
	switch (id) {
	case X86_INS_JE: return zero;
	case X86_INS_JNE: return !zero;
	case X86_INS_JB: return below;
	case X86_INS_JAE: return !below;
	case X86_INS_JBE: return below || zero;
	case X86_INS_JA: return !below && !zero;
	case X86_INS_JL: return less;
	case X86_INS_JGE: return !less;
	case X86_INS_JLE: return less || zero;
	case X86_INS_JG: return !less && !zero;
	case X86_INS_JS: return sign;
	case X86_INS_JNS: return !sign;
	default: *ret_known = false; return false;
	}
}

static void compute(struct walk *walk, struct state *state, unsigned int id, const cs_x86 *x86)
{
	const cs_x86_op *to = &x86->operands[0], *from = &x86->operands[1];
	uint64_t left = 0, right = 0, address = 0;
	bool known;

	switch (id) {
	case X86_INS_MOV:
	case X86_INS_MOVABS:
		known = operand_value(walk, state, from, &right);
		if (to->type != X86_OP_REG)
			return;
		if (from->type != X86_OP_MEM || !operand_address(state, walk->insn, from, &address))
			address = 0;
		set_register(state, to->reg, known, right);
		if (to->reg == X86_REG_RAX)
			state->rax_loaded_from = address;
		return;
	case X86_INS_MOVSXD:
		known = operand_value(walk, state, from, &right);
		set_register(state, to->reg, known, (uint64_t)(int64_t)(int32_t)right);
		return;
	case X86_INS_LEA:
		known = operand_address(state, walk->insn, from, &address);
		set_register(state, to->reg, known, address);
		return;
	case X86_INS_CMP:
	case X86_INS_TEST:
		state->compared = operand_value(walk, state, to, &left) && operand_value(walk, state, from, &right);
		state->compared_by_test = id == X86_INS_TEST;
		state->compared_bits = to->size * 8U;
		state->left = left;
		state->right = truncate_bits(right, state->compared_bits);
		return;
	case X86_INS_XOR:
		if (to->type == X86_OP_REG && from->type == X86_OP_REG && to->reg == from->reg) {
			set_register(state, to->reg, true, 0);
			state->compared = false;
			return;
		}
		break;
	case X86_INS_ADD:
		known = operand_value(walk, state, to, &left) && operand_value(walk, state, from, &right);
		if (to->type == X86_OP_REG) {
			set_register(state, to->reg, known, left + right);
			state->compared = false;
			return;
		}
		break;
	default:
		break;
	}
	forget_written(walk, state);
}

static enum verdict references(struct walk *walk, const struct state *state, unsigned int id, const cs_x86 *x86)
{
	for (uint8_t i = 0; i < x86->op_count; i++) {
		const cs_x86_op *operand = &x86->operands[i];
		uint64_t address;

		if (operand->type == X86_OP_IMM && i == 1 && (id == X86_INS_MOV || id == X86_INS_MOVABS))
			address = (uint64_t)operand->imm;
		else if (operand->type != X86_OP_MEM || !operand_address(state, walk->insn, operand, &address))
			continue;
		if (walk->is_data(walk->context, address) && walk->reference(walk, address) == STOP)
			return STOP;
	}
	return GO_ON;
}

static bool fetch(struct walk *walk, uint64_t ip)
{
	uint64_t offset = ip - walk->window_start;
	const uint8_t *code;
	size_t left;
	uint64_t address = ip;

	if (offset >= walk->window_size || walk->window_size - offset < INSTRUCTION_MAX) {
		/* Code may end close to the end of a mapping: then less than a window can be read. */
		walk->window_start = ip;
		for (walk->window_size = WINDOW; walk->window_size > 0;
				walk->window_size -= walk->window_size > 16 ? walk->window_size / 2 : 1)
			if (walk->read(walk->context, ip, walk->window, walk->window_size) == 0)
				break;
		offset = 0;
	}
	code = walk->window + offset;
	left = walk->window_size - (size_t)offset;
	return left && cs_disasm_iter(walk->handle, &code, &left, &address, walk->insn);
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

/* One way through the function; other ways are left in walk->pending. */
static enum verdict follow(struct walk *walk, struct state *state)
{
	while (visit(walk, state->ip) && fetch(walk, state->ip)) {
		const cs_x86 *x86 = &walk->insn->detail->x86;
		unsigned int id = walk->insn->id;
		uint64_t next = walk->insn->address + walk->insn->size, target = 0;
		bool known, taken;

		if (references(walk, state, id, x86) == STOP)
			return STOP;
		if (cs_insn_group(walk->handle, walk->insn, CS_GRP_RET))
			return walk->returned ? walk->returned(walk, state) : GO_ON;
		if (cs_insn_group(walk->handle, walk->insn, CS_GRP_CALL)) {
			forget_call_clobbered(state);
		} else if (id == X86_INS_JMP) {
			if (!operand_value(walk, state, &x86->operands[0], &next))
				return GO_ON;
			/* A tail call through a slot leaves the function; through a register it may be a switch. */
			if (x86->operands[0].type == X86_OP_MEM)
				return GO_ON;
			if (x86->operands[0].type == X86_OP_REG && walk->both_ways)
				return GO_ON;
		} else if (cs_insn_group(walk->handle, walk->insn, CS_GRP_JUMP)) {
			if (!operand_value(walk, state, &x86->operands[0], &target))
				return GO_ON;
			taken = branch_taken(state, id, &known);
			if (known && !walk->both_ways) {
				if (taken)
					next = target;
			} else if (walk->pending_count < PENDING_MAX) {
				walk->pending[walk->pending_count] = *state;
				walk->pending[walk->pending_count++].ip = target;
			}
		} else {
			compute(walk, state, id, x86);
		}
		state->ip = next;
	}
	return GO_ON;
}

static int walk_function(struct walk *walk, const struct state *start)
{
	int r = 0;

	if (cs_open(CS_ARCH_X86, CS_MODE_64, &walk->handle) != CS_ERR_OK)
		return -ENOMEM;
	if (cs_option(walk->handle, CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK ||
			!(walk->insn = cs_malloc(walk->handle))) {
		r = -ENOMEM;
		goto out_close;
	}
	walk->pending[walk->pending_count++] = *start;
	while (walk->pending_count) {
		struct state state = walk->pending[--walk->pending_count];

		if (follow(walk, &state) == STOP)
			break;
	}
	cs_free(walk->insn, 1);
out_close:
	cs_close(&walk->handle);
	return r;
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
	struct walk walk = { .read = read, .is_data = is_data, .context = context, .reference = stop_at_first,
		.found = ret_table, .found_max = 1 };
	struct state start = { .ip = function };
	int r;

	set_register(&start, X86_REG_EDI, true, (uint64_t)domain);
	r = walk_function(&walk, &start);
	if (r < 0)
		return r;
	return walk.found_count ? 0 : -ENOENT;
}

int pl_arch_data_references(uint64_t function, pl_arch_read read, pl_arch_is_data is_data, void *context,
			    uint64_t *found, size_t max, size_t *ret_count)
{
	struct walk walk = { .read = read, .is_data = is_data, .context = context, .reference = collect,
		.both_ways = true, .found = found, .found_max = max };
	struct state start = { .ip = function };
	int r = max ? walk_function(&walk, &start) : 0;

	*ret_count = walk.found_count;
	return r;
}

static bool nothing_is_data(void *context, uint64_t address)
{
	return false;
}

static enum verdict note_loaded_word(struct walk *walk, const struct state *state)
{
	if (state->rax_loaded_from) {
		walk->found[0] = state->rax_loaded_from;
		walk->found_count = 1;
	}
	return STOP;
}

int pl_arch_loaded_word(uint64_t function, pl_arch_read read, void *context, uint64_t *ret_address)
{
	struct walk walk = { .read = read, .is_data = nothing_is_data, .context = context, .reference = collect,
		.returned = note_loaded_word, .found = ret_address, .found_max = 1 };
	struct state start = { .ip = function };
	int r = walk_function(&walk, &start);

	if (r < 0)
		return r;
	return walk.found_count ? 0 : -ENOENT;
}
