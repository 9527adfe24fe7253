/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edges.h"
#include "holders_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/table.h"
#include "pyleak/text.h"

/*
 * The graph in the format of V8's heap snapshots (v8/src/profiler/heap-snapshot-generator.cc, HeapSnapshotJSONSerializer):
 * arrays of numbers, seven for each node and three for each edge, and strings by their places. What reads them wants every node
 * to be reachable from the first one; a weak edge is one that retains nothing.
 */

enum {
	NODE_FIELDS = 7,
	/* Places in the lists of types below. */
	NODE_STRING = 2, NODE_OBJECT, NODE_CODE, NODE_CLOSURE, NODE_NUMBER = 7, NODE_NATIVE, NODE_SYNTHETIC,
	LINK_CONTEXT = 0, LINK_ELEMENT, LINK_PROPERTY, LINK_INTERNAL, LINK_WEAK = 6,
	TEXT_SHOWN = 64,
};

static const char head[] = "{\"snapshot\":{\"meta\":{"
	"\"node_fields\":[\"type\",\"name\",\"id\",\"self_size\",\"edge_count\",\"trace_node_id\",\"detachedness\"],"
	"\"node_types\":[[\"hidden\",\"array\",\"string\",\"object\",\"code\",\"closure\",\"regexp\",\"number\",\"native\",\"synthetic\","
	"\"concatenated string\",\"sliced string\",\"symbol\",\"bigint\",\"object shape\"],"
	"\"string\",\"number\",\"number\",\"number\",\"number\",\"number\"],"
	"\"edge_fields\":[\"type\",\"name_or_index\",\"to_node\"],"
	"\"edge_types\":[[\"context\",\"element\",\"property\",\"internal\",\"hidden\",\"shortcut\",\"weak\"],"
	"\"string_or_number\",\"node\"],"
	"\"trace_function_info_fields\":[\"function_id\",\"name\",\"script_name\",\"script_id\",\"line\",\"column\"],"
	"\"trace_node_fields\":[\"id\",\"function_info_index\",\"count\",\"size\",\"children\"],"
	"\"sample_fields\":[\"timestamp_us\",\"last_assigned_id\"],"
	"\"location_fields\":[\"object_index\",\"script_id\",\"line\",\"column\"]},";

struct link {
	uint32_t to;
	struct edge edge;
};

struct writing {
	struct analysis *analysis;
	struct view *view;
	FILE *out;
	uint32_t *index;       /* of each object: its place among the nodes; NO_OBJECT: it is left out */
	uint32_t nodes;        /* all, with those that are no objects */
	uint64_t edges;
	uint32_t garbage_node; /* NO_OBJECT: there is none */
	uint32_t *garbage;     /* objects from which all garbage is reached */
	uint32_t garbage_count;
	/* Strings, as they will stand in the file, and their numbers by what they are of. */
	FILE *texts;
	char *text_bytes;
	size_t text_length;
	uint32_t text_count;
	struct pl_table by_hash, by_address, by_field;
	struct link *links;    /* scratch: of one object */
	size_t link_count, link_capacity;
	bool comma;
	int code;
};

static void print_json_text(FILE *out, const char *text)
{
	pl_autofree char *repaired = pl_text_repair(text);

	(void)fputc('"', out);
	for (const char *c = repaired ? repaired : ""; *c; c++)
		if (*c == '"' || *c == '\\')
			(void)fprintf(out, "\\%c", *c);
		else if ((unsigned char)*c < 32 || *c == 127)
			(void)fprintf(out, "\\u%04x", *c);
		else
			(void)fputc(*c, out);
	(void)fputc('"', out);
}

/* FNV-1a. */
static uint64_t hash_of(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
	return hash ? hash : 1;
}

static uint32_t new_text(struct writing *writing, const char *text)
{
	if (writing->text_count)
		(void)fputs(",\n", writing->texts);
	print_json_text(writing->texts, text);
	return writing->text_count++;
}

/* The number of a string, which is there once. */
static uint32_t text_number(struct writing *writing, const char *text)
{
	struct pl_table_entry *entry = text ? pl_table_insert(&writing->by_hash, hash_of(text)) : NULL;

	if (!entry) {
		writing->code = -ENOMEM;
		return 0;
	}
	if (!entry->value[0])
		entry->value[0] = (uint64_t)new_text(writing, text) + 1;
	return (uint32_t)entry->value[0] - 1;
}

/* Of a key: by the object that it is. */
static uint32_t key_number(struct writing *writing, uint64_t address)
{
	struct pl_table_entry *entry = pl_table_insert(&writing->by_address, address ? address : 1);
	char text[TEXT_SHOWN];
	uint32_t number;

	if (!entry) {
		writing->code = -ENOMEM;
		return 0;
	}
	if (entry->value[0])
		return (uint32_t)entry->value[0] - 1;
	if (text_at(writing->view, address, text, sizeof(text))) {
		number = text_number(writing, text);
	} else {
		pl_autofree char *printed = NULL;
		size_t length = 0;
		FILE *stream = open_memstream(&printed, &length);

		if (stream) {
			print_value(stream, writing->view, address, 0);
			(void)fclose(stream);
		}
		number = text_number(writing, printed);
	}
	entry->value[0] = (uint64_t)number + 1;
	return number;
}

/* Of a field of a type's, or a local: the same for all of the type or the code. */
static uint32_t field_number(struct writing *writing, uint32_t from, const struct link *link)
{
	bool dict = type_of(writing->view, link->to)->kind == KIND_DICT;
	uint64_t key = link->edge.kind == EDGE_LOCAL ? link->edge.name ^ link->edge.index << 48 :
		((uint64_t)writing->view->type_of[from] << 40 ^ link->edge.index << 2 ^ (uint64_t)dict << 1 ^ UINT64_C(1) << 63);
	struct pl_table_entry *entry = pl_table_insert(&writing->by_field, key ? key : 1);
	pl_autofree char *name = NULL;
	const char *text;

	if (!entry) {
		writing->code = -ENOMEM;
		return 0;
	}
	if (entry->value[0])
		return (uint32_t)entry->value[0] - 1;
	name = name_of_edge(writing->view, from, link->to, &link->edge);
	text = name && link->edge.kind == EDGE_LOCAL && strchr(name, ':') ? strrchr(name, ':') + 1 : name;
	if (text && *text == '.')
		text++;
	entry->value[0] = (uint64_t)text_number(writing, text && *text ? text : "__dict__") + 1;
	return (uint32_t)entry->value[0] - 1;
}

static void separate(struct writing *writing)
{
	if (writing->comma)
		(void)fputs(",\n", writing->out);
	writing->comma = true;
}

static void print_node(struct writing *writing, int type, uint32_t name, uint32_t place, uint64_t size, uint32_t edges)
{
	separate(writing);
	(void)fprintf(writing->out, "%d,%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu32 ",0,0", type, name, 2 * (uint64_t)place + 1, size, edges);
	writing->edges += edges;
}

static void print_link(struct writing *writing, int type, uint64_t name, uint32_t place)
{
	separate(writing);
	(void)fprintf(writing->out, "%d,%" PRIu64 ",%" PRIu64, type, name, (uint64_t)place * NODE_FIELDS);
}

/* Never an "array": DevTools takes that for a part of what leads to it, and gives its size to it. */
static int node_type(const struct type *type)
{
	switch (type->kind) {
	case KIND_TEXT: return NODE_STRING;
	case KIND_INT: return NODE_NUMBER;
	case KIND_CODE: case KIND_FRAME: return NODE_CODE;
	case KIND_FUNCTION: return NODE_CLOSURE;
	case KIND_BYTES: case KIND_BYTEARRAY: case KIND_NDARRAY: return NODE_NATIVE;
	default: return strcmp(type->name, "float") == 0 ? NODE_NUMBER : NODE_OBJECT;
	}
}

/* A text is called by what it says, and all else by its type; modules, classes and functions by their names. */
static uint32_t node_name(struct writing *writing, uint32_t object, const uint32_t *names_of_types)
{
	const struct type *type = type_of(writing->view, object);
	char text[TEXT_SHOWN];

	if (type->kind == KIND_TEXT && text_at(writing->view, address_of(writing->view, object), text, sizeof(text)))
		return text_number(writing, text);
	if ((type->kind == KIND_MODULE || type->kind == KIND_TYPE || type->kind == KIND_FUNCTION) &&
		writing->analysis->roots.via[object] != PL_GRAPH_NONE) {
		pl_autofree char *path = name_of_path(writing->view, &writing->analysis->roots, object);

		return text_number(writing, path);
	}
	return names_of_types[writing->view->type_of[object]];
}

static bool is_left_out(const struct view *view, uint32_t object)
{
	return view->atoms[object / 64] >> object % 64 & 1;
}

/* From each of these, one after the other, all that is not reached otherwise is. */
static int find_garbage(struct writing *writing)
{
	const struct pl_graph *graph = &writing->view->graph;
	pl_autofree uint32_t *via = malloc((size_t)graph->count * sizeof(*via));
	pl_autofree uint32_t *order = malloc((size_t)graph->count * sizeof(*order));
	uint32_t reached = 0, capacity = 0;

	if (!via || !order)
		return -ENOMEM;
	memcpy(via, writing->analysis->roots.via, (size_t)graph->count * sizeof(*via));
	for (uint32_t i = 1; i < graph->count; i++) {
		if (via[i] != PL_GRAPH_NONE || is_left_out(writing->view, i))
			continue;
		if (writing->garbage_count == capacity) {
			uint32_t *grown;

			capacity = capacity ? 2 * capacity : 256;
			grown = reallocarray(writing->garbage, capacity, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			writing->garbage = grown;
		}
		writing->garbage[writing->garbage_count++] = i;
		pl_graph_reach(graph, &i, 1, via, order, &reached);
	}
	return 0;
}

static void write_nodes(struct writing *writing, const uint32_t *names_of_types)
{
	const struct view *view = writing->view;
	const struct pl_graph *graph = &view->graph;

	writing->comma = false;
	print_node(writing, NODE_SYNTHETIC, text_number(writing, "(roots of Python)"), 0, 0,
		graph->offsets[1] + (writing->garbage_count > 0));
	for (uint32_t i = 1; i < view->count && writing->code == 0; i++)
		if (writing->index[i] != NO_OBJECT)
			print_node(writing, node_type(type_of(view, i)), node_name(writing, i, names_of_types), writing->index[i], view->sizes[i],
				graph->offsets[i + 1] - graph->offsets[i]);
	if (writing->garbage_count)
		print_node(writing, NODE_SYNTHETIC, text_number(writing, "(" PL_HELD_BY_GARBAGE ")"), writing->garbage_node, 0,
			writing->garbage_count);
}

static void note_link(void *context, uint32_t target, const struct edge *edge)
{
	struct writing *writing = context;

	if (writing->index[target] == NO_OBJECT)
		return;
	if (writing->link_count == writing->link_capacity) {
		size_t capacity = writing->link_capacity ? 2 * writing->link_capacity : 256;
		struct link *grown = reallocarray(writing->links, capacity, sizeof(*grown));

		if (!grown) {
			writing->code = -ENOMEM;
			return;
		}
		writing->links = grown;
		writing->link_capacity = capacity;
	}
	writing->links[writing->link_count++] = (struct link){ target, *edge };
}

static void print_edge(struct writing *writing, uint32_t from, const struct link *link)
{
	uint32_t place = writing->index[link->to];

	switch (link->edge.kind) {
	case EDGE_ITEM:
		print_link(writing, LINK_ELEMENT, link->edge.index, place);
		return;
	case EDGE_VALUE: case EDGE_ATTRIBUTE:
		print_link(writing, LINK_PROPERTY, key_number(writing, link->edge.name), place);
		return;
	case EDGE_LOCAL:
		print_link(writing, LINK_CONTEXT, field_number(writing, from, link), place);
		return;
	case EDGE_WORD:
		print_link(writing, LINK_PROPERTY, field_number(writing, from, link), place);
		return;
	case EDGE_KEY:
		print_link(writing, LINK_INTERNAL, text_number(writing, "(key)"), place);
		return;
	case EDGE_TYPE:
		print_link(writing, LINK_INTERNAL, text_number(writing, "__class__"), place);
		return;
	default:
		print_link(writing, LINK_INTERNAL, text_number(writing, "(memory)"), place);
		return;
	}
}

/* The edges of the graph, in its order; what they are called is found in the same order. */
static void write_edges_of(struct writing *writing, uint32_t object)
{
	const struct pl_graph *graph = &writing->view->graph;
	const struct edge_visitor visitor = { note_link, NULL, writing };
	bool garbage = writing->analysis->roots.via[object] == PL_GRAPH_NONE;
	size_t at = 0;

	writing->link_count = 0;
	edges_of(writing->view, object, &visitor);
	for (uint32_t e = graph->offsets[object]; e < graph->offsets[object + 1]; e++) {
		uint32_t to = graph->targets[e];
		size_t found = at;

		while (found < writing->link_count && writing->links[found].to != to)
			found++;
		/* What is garbage retains nothing of the others. */
		if (garbage && writing->analysis->roots.via[to] != PL_GRAPH_NONE)
			print_link(writing, LINK_WEAK, text_number(writing, "(from garbage)"), writing->index[to]);
		else if (found < writing->link_count)
			print_edge(writing, object, &writing->links[found]);
		else
			print_link(writing, LINK_INTERNAL, text_number(writing, "(memory)"), writing->index[to]);
		if (found < writing->link_count)
			at = found + 1;
	}
}

static void write_edges(struct writing *writing)
{
	const struct view *view = writing->view;
	const struct pl_graph *graph = &view->graph;

	writing->comma = false;
	for (uint32_t e = graph->offsets[0]; e < graph->offsets[1] && writing->code == 0; e++) {
		pl_autofree char *path = name_of_path(writing->view, &writing->analysis->roots, graph->targets[e]);

		print_link(writing, LINK_PROPERTY, text_number(writing, path), writing->index[graph->targets[e]]);
	}
	if (writing->garbage_count)
		print_link(writing, LINK_PROPERTY, text_number(writing, "(" PL_HELD_BY_GARBAGE ")"), writing->garbage_node);
	for (uint32_t i = 1; i < view->count && writing->code == 0; i++)
		if (writing->index[i] != NO_OBJECT)
			write_edges_of(writing, i);
	for (uint32_t i = 0; i < writing->garbage_count; i++)
		print_link(writing, LINK_ELEMENT, i, writing->index[writing->garbage[i]]);
}

static int name_types(struct writing *writing, uint32_t *names)
{
	/* To name one may find new ones. */
	for (uint32_t i = 0, count = writing->view->type_count; i < count && writing->code == 0; i++) {
		pl_autofree char *name = name_of_type(writing->view, &writing->view->types[i]);

		names[i] = text_number(writing, name);
	}
	return writing->code;
}

static int number_nodes(struct writing *writing, uint64_t *ret_edges)
{
	const struct view *view = writing->view;
	const struct pl_graph *graph = &view->graph;

	writing->nodes = 1;
	writing->index[0] = 0;
	*ret_edges = graph->offsets[1];
	for (uint32_t i = 1; i < view->count; i++) {
		/* One that never ends has a node if it is a root all the same. */
		bool left_out = is_left_out(view, i) && writing->analysis->roots.via[i] == PL_GRAPH_NONE;

		writing->index[i] = left_out ? NO_OBJECT : writing->nodes++;
		if (!left_out)
			*ret_edges += graph->offsets[i + 1] - graph->offsets[i];
	}
	if (writing->garbage_count) {
		writing->garbage_node = writing->nodes++;
		*ret_edges += 1 + (uint64_t)writing->garbage_count;
	}
	return writing->nodes < UINT32_MAX / NODE_FIELDS ? 0 : -E2BIG;
}

static int write_all(struct writing *writing)
{
	pl_autofree uint32_t *names = calloc((size_t)writing->view->type_count + 1, sizeof(*names));
	uint64_t edges = 0;
	int code = names ? find_garbage(writing) : -ENOMEM;

	if (code == 0)
		code = number_nodes(writing, &edges);
	if (code == 0)
		code = name_types(writing, names);
	if (code < 0)
		return code;
	(void)fputs(head, writing->out);
	(void)fprintf(writing->out, "\"node_count\":%" PRIu32 ",\"edge_count\":%" PRIu64 ",\"trace_function_count\":0},\n\"nodes\":[", writing->nodes, edges);
	write_nodes(writing, names);
	(void)fputs("],\n\"edges\":[", writing->out);
	write_edges(writing);
	(void)fputs("],\n\"trace_function_infos\":[],\n\"trace_tree\":[],\n\"samples\":[],\n\"locations\":[],\n\"strings\":[", writing->out);
	if (writing->code == 0 && (fflush(writing->texts) != 0 || fwrite(writing->text_bytes, 1, writing->text_length, writing->out) != writing->text_length))
		writing->code = -EIO;
	(void)fputs("]}\n", writing->out);
	return writing->code;
}

int write_snapshot(struct analysis *analysis, FILE *out)
{
	struct writing writing = { .analysis = analysis, .view = analysis->view, .out = out, .garbage_node = NO_OBJECT,
		.index = malloc((size_t)analysis->view->count * sizeof(uint32_t)) };
	int code = -ENOMEM;

	writing.texts = open_memstream(&writing.text_bytes, &writing.text_length);
	if (writing.index && writing.texts)
		code = write_all(&writing);
	if (writing.texts)
		(void)fclose(writing.texts);
	free(writing.text_bytes);
	free(writing.index);
	free(writing.garbage);
	free(writing.links);
	pl_table_free(&writing.by_hash);
	pl_table_free(&writing.by_address);
	pl_table_free(&writing.by_field);
	return code < 0 ? code : ferror(out) ? -EIO : 0;
}
