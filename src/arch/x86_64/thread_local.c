/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include <capstone/capstone.h>

#include "pyleak/arch.h"

#define FUNCTION_BYTES 64
#define INSTRUCTIONS_MAX 12

struct decoder {
	pl_arch_read read;
	void *context;
	uint64_t got[X86_REG_ENDING]; /* register → the GOT word that it was loaded from; 0: not so */
	uint64_t pair;                /* what rdi was made to point to; 0: not so */
	uint64_t descriptor;          /* what rax was made to point to; 0: not so */
	bool called;                  /* with one of these: rax is where the pair leads to, or that from the thread pointer */
};

static uint64_t rip_relative(const cs_insn *insn, const cs_x86_op *op)
{
	return op->mem.base == X86_REG_RIP && op->mem.index == X86_REG_INVALID ?
		       insn->address + insn->size + (uint64_t)op->mem.disp : 0;
}

/* The ways in which the psABI lets code reach a thread-local word of its own process:
 *   local exec     mov %fs:disp, %rax
 *   initial exec   mov x@gottpoff(%rip), %rcx; mov %fs:(%rcx), %rax
 *   general        lea x@tlsgd(%rip), %rdi; call __tls_get_addr; mov (%rax), %rax
 *   local          lea x@tlsld(%rip), %rdi; call __tls_get_addr; mov disp(%rax), %rax
 *   descriptors    lea x@tlsdesc(%rip), %rax; call *(%rax); mov %fs:disp(%rax), %rax
 * 0 with *ret filled; -EAGAIN: look at the next instruction. */
static int look(struct decoder *decoder, const cs_insn *insn, struct pl_thread_local *ret)
{
	const cs_x86 *x86 = &insn->detail->x86;
	const cs_x86_op *to = &x86->operands[0], *from = &x86->operands[1];
	int64_t offset;

	if (insn->id == X86_INS_CALL) {
		bool by_descriptor = to->type == X86_OP_MEM && to->mem.base == X86_REG_RAX && !to->mem.disp;

		if (by_descriptor)
			decoder->pair = 0;
		else
			decoder->descriptor = 0;
		decoder->called = decoder->pair || decoder->descriptor;
		return decoder->called ? -EAGAIN : -ENOENT;
	}
	if (x86->op_count != 2 || to->type != X86_OP_REG || from->type != X86_OP_MEM)
		return insn->id == X86_INS_RET || insn->id == X86_INS_JMP ? -ENOENT : -EAGAIN;
	if (insn->id == X86_INS_LEA && to->reg == X86_REG_RDI)
		decoder->pair = rip_relative(insn, from);
	if (insn->id == X86_INS_LEA && to->reg == X86_REG_RAX)
		decoder->descriptor = rip_relative(insn, from);
	if (insn->id != X86_INS_MOV)
		return -EAGAIN;
	if (decoder->called) {
		if (from->mem.base != X86_REG_RAX || from->mem.index != X86_REG_INVALID ||
			(from->mem.segment == X86_REG_FS) != (decoder->descriptor != 0))
			return -ENOENT;
		*ret = (struct pl_thread_local){from->mem.disp, decoder->pair, decoder->descriptor};
		return 0;
	}
	if (from->mem.segment == X86_REG_FS) {
		if (from->mem.base == X86_REG_INVALID && from->mem.index == X86_REG_INVALID) {
			*ret = (struct pl_thread_local){.offset = from->mem.disp};
			return 0;
		}
		if (from->mem.index != X86_REG_INVALID || !decoder->got[from->mem.base] ||
			decoder->read(decoder->context, decoder->got[from->mem.base], &offset, sizeof(offset)) < 0)
			return -ENOENT;
		*ret = (struct pl_thread_local){.offset = offset + from->mem.disp};
		return 0;
	}
	decoder->got[to->reg] = rip_relative(insn, from);
	return -EAGAIN;
}

int pl_arch_thread_local(uint64_t function, pl_arch_read read, void *context, struct pl_thread_local *ret)
{
	struct decoder decoder = {.read = read, .context = context};
	uint8_t bytes[FUNCTION_BYTES];
	const uint8_t *at = bytes;
	size_t left = sizeof(bytes);
	uint64_t address = function;
	csh handle;
	int code = -EAGAIN;

	if (read(context, function, bytes, sizeof(bytes)) < 0)
		return -EFAULT;
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		return -ENOMEM;
	(void)cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);

	cs_insn *insn = cs_malloc(handle);

	for (int i = 0; insn && i < INSTRUCTIONS_MAX && code == -EAGAIN; i++)
		code = cs_disasm_iter(handle, &at, &left, &address, insn) ? look(&decoder, insn, ret) : -ENOENT;
	if (insn)
		cs_free(insn, 1);
	(void)cs_close(&handle);
	return code == -EAGAIN ? -ENOENT : code;
}
