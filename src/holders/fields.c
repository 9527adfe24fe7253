/* SPDX-License-Identifier: MIT */
#include "fields.h"

/* PyTypeObject with a GIL: tp_members, tp_base; PyMemberDef: name, type, offset, flags, doc. */
enum { TYPE_MEMBERS = 240, TYPE_BASE = 256, MEMBER_BYTES = 40, MEMBER_OFFSET = 16, MEMBERS_MAX = 256, BASES_MAX = 16 };

/* The name of a field, as the type's members or those of its bases say it. */
bool member_name(struct view *view, const struct type *type, uint64_t offset, char *text, size_t max)
{
	const uint64_t moved = (uint64_t)view->layout.head - 16;
	uint64_t address = type->address;

	for (int depth = 0; address && depth < BASES_MAX; depth++) {
		uint64_t members = image_word(view->image, address + TYPE_MEMBERS + moved);

		for (int i = 0; members && i < MEMBERS_MAX; i++) {
			uint8_t member[MEMBER_BYTES];

			if (!image_read(view->image, members + (uint64_t)i * MEMBER_BYTES, member, sizeof(member)) || !word_of(member, 0))
				break;
			if (word_of(member, MEMBER_OFFSET) == offset)
				return image_text(view->image, word_of(member, 0), text, max);
		}
		address = image_word(view->image, address + TYPE_BASE + moved);
	}
	return false;
}

/* Fields of exceptions have no members; their order has not changed but for __notes__ (3.11). */
const char *exception_field(const struct view *view, const struct type *type, uint64_t offset)
{
	static const char *const fields[] = { "__dict__", "args", "__notes__", "__traceback__", "__context__", "__cause__" };
	uint64_t index = (offset - (uint64_t)view->layout.head) / 8;

	if (!(type->flags & UINT64_C(1) << 30)) /* Py_TPFLAGS_BASE_EXC_SUBCLASS */
		return NULL;
	if (view->python->minor < 11 && index >= 2)
		index++;
	return index < sizeof(fields) / sizeof(fields[0]) ? fields[index] : NULL;
}
