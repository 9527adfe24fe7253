/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/space.h"
#include "python_private.h"

enum {
	CODE_HEADER = 256, /* more than any field of PyCodeObject that is read */
	NAME_MAX_BYTES = 4096,
	LINE_TABLE_MAX = 1 << 24,
};

static int read_string(const struct pl_python *python, uint64_t object, char **ret)
{
	int r = pl_python_string(python, object, NAME_MAX_BYTES, ret);

	if (r == 0 || r == -ESRCH || r == -EPERM || r == -ENOMEM)
		return r;
	*ret = strdup("<unknown>");
	return *ret ? 0 : -ENOMEM;
}

static int read_line_table(const struct pl_python *python, uint64_t object, uint8_t **ret, size_t *ret_size)
{
	pl_autofree uint8_t *table = NULL;
	uint64_t size;
	int r = pl_space_read_u64(python->space, object + (uint64_t)python->layout.bytes_size, &size);

	if (r < 0)
		return r;
	if (size > LINE_TABLE_MAX)
		return -EINVAL;
	table = malloc(size + 1);
	if (!table)
		return -ENOMEM;
	r = pl_space_read(python->space, object + (uint64_t)python->layout.bytes_data, table, size);
	if (r < 0)
		return r;
	*ret = PL_TAKE(table);
	*ret_size = size;
	return 0;
}

int pl_python_code_read(const struct pl_python *python, uint64_t code, struct pl_code *ret)
{
	const struct pl_python_layout *layout = &python->layout;
	int32_t name = layout->code_qualname != PL_NO_FIELD ? layout->code_qualname : layout->code_name;
	const int32_t fields[] = { layout->code_filename, name, layout->code_line_table, layout->code_first_line };
	int32_t last = field_last(fields, sizeof(fields) / sizeof(fields[0]));
	uint8_t header[CODE_HEADER];
	struct pl_code result = { 0 };
	int r;

	r = pl_space_read(python->space, code, header, (size_t)last + 8);
	if (r < 0)
		return r;
	if (field_u64(header, layout->object_type) != python->code_type)
		return -EINVAL;
	result.first_line = (int)field_u32(header, layout->code_first_line);
	r = read_string(python, field_u64(header, layout->code_filename), &result.filename);
	if (r == 0)
		r = read_string(python, field_u64(header, name), &result.name);
	if (r == 0)
		r = read_line_table(python, field_u64(header, layout->code_line_table), &result.line_table,
			&result.line_table_size);
	if (r < 0) {
		pl_code_free(&result);
		return r;
	}
	*ret = result;
	return 0;
}

void pl_code_free(struct pl_code *code)
{
	free(code->filename);
	free(code->name);
	free(code->line_table);
	*code = (struct pl_code){ 0 };
}
