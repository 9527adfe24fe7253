/* SPDX-License-Identifier: MIT */
/*
 * The first two pages of the image: room for struct pl_probe_header, struct pl_inline_image, and
 * zeros where the tracer puts the config.
 */
	.section .image, "a", @progbits
	.globl pl_image
	.hidden pl_image
pl_image:
	.org 4096, 0			/* PL_INLINE_IMAGE_OFFSET */
	.quad 0x31656e696c6e6970	/* PL_INLINE_MAGIC */
	.long 13				/* PL_INLINE_ABI */
	.long pl_image_end - pl_image
	.long 102			/* PL_INLINE_ENTRY_COUNT */
	.irp domain, raw, mem, obj
	.irp function, malloc, calloc, realloc, free
	.long pl_\domain\()_\function - pl_image
	.endr
	.endr
	.irp call, dealloc, free
	.irp type, list, dict, tuple, float
	.long pl_type_\call\()_\type - pl_image
	.endr
	.endr
	.long pl_created - pl_image
	/* PL_INLINE_NATIVE_ENTRIES */
	.macro native kind, count
	.set number, 0
	.rept \count
	native_entry \kind, %number
	.set number, number + 1
	.endr
	.endm
	.macro native_entry kind, number
	.long pl_native_\kind\()_\number - pl_image
	.endm
	.altmacro
	native alloc, 16
	native calloc, 3
	native aligned, 6
	native realloc, 5
	native reallocarray, 4
	native posix_memalign, 3
	native free, 16
	native mmap, 4
	native munmap, 3
	native mremap, 3
	native pool_allocate, 6
	native pool_reallocate, 6
	native pool_free, 6
	.noaltmacro
	.org 4096 + 20 + 4 * 120, 0	/* behind PL_INLINE_ENTRIES_MAX */
	.long pl_errand - pl_image
	.long pl_errand_end - pl_image
	.org 4608, 0			/* PL_INLINE_CONFIG_OFFSET */
	.globl pl_config
	.hidden pl_config
	.type pl_config, @object
pl_config:
	.org 12288, 0			/* PL_INLINE_TEXT_OFFSET, behind the copies of types */
	.section .note.GNU-stack, "", @progbits
