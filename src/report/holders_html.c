/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "holders_document.h"
#include "members.h"
#include "page.h"
#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/holders_report.h"

/*
 * One page with everything in it: html/holders.html with its style and its script, and the data as JSON:
 *
 *   report  as --format json has it
 *   nodes   [parent, path ("" : several things of one type), type, members, own, objects of its own, size, count] of the tree
 *           of what retains what; parents come first, and the first one has -1
 */

extern const unsigned char html_holders_page[];
extern const size_t html_holders_page_size;

static json_t *make_node(const struct pl_held_node *node)
{
	json_t *item = json_array();
	bool failed = json_array_append_new(item, json_integer(node->parent == UINT32_MAX ? -1 : (json_int_t)node->parent)) < 0;
	const uint64_t numbers[] = {node->members, node->own, node->own_count, node->size, node->count};

	failed |= json_array_append_new(item, make_string(node->path ? node->path : "")) < 0;
	failed |= json_array_append_new(item, make_string(node->type)) < 0;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		failed |= json_array_append_new(item, json_integer((json_int_t)numbers[i])) < 0;
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_nodes(const struct pl_held_tree *tree)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < tree->count && !failed; i++)
		failed = json_array_append_new(list, make_node(&tree->nodes[i])) < 0;
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

int pl_holders_html(FILE *out, const struct pl_holders_report *report)
{
	json_t *data = json_object();
	bool failed = put_string(data, "writer", "pyleak " PYLEAK_VERSION);
	int code = -ENOMEM;

	failed |= put(data, "report", holders_document(report));
	failed |= put(data, "nodes", make_nodes(report->tree));
	if (!failed)
		code = page_print(out, (const char *)html_holders_page, html_holders_page_size, data);
	json_decref(data);
	return code;
}
