/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_EDGES_H
#define PYLEAK_HOLDERS_EDGES_H

#include "view.h"

/*
 * What objects refer to: every word of an object's own body that is the address of an object, but for those that are known
 * to own nothing (a weak reference, a neighbour in a list), and what lies in memory that it alone has: items of a list,
 * keys and values of a dict, the table of a set, a frame. What an object of a library leads to outside of objects is its
 * own too, where malloc's chunk says how large it is.
 */

/* How an object refers to another: what `visit` is told of it. */
enum edge_kind {
	EDGE_WORD,      /* a word of its body: `index` is its offset */
	EDGE_ITEM,      /* of a list, tuple, set, deque, array: `index` */
	EDGE_KEY,       /* a dict's key, the index-th entry */
	EDGE_VALUE,     /* a dict's value; `name` is the key's address */
	EDGE_ATTRIBUTE, /* a value in a table of attributes: `name` is the key's address */
	EDGE_LOCAL,     /* of a frame: `index`, `name` is the code object's address */
	EDGE_MEMORY,    /* a word of memory that the object leads to: nobody says that it owns it */
	EDGE_TYPE,
};
struct edge {
	enum edge_kind kind;
	uint64_t index, name;
	bool owned;     /* the object's count of references says so */
};
struct edge_visitor {
	/* `target` is a number. */
	void (*see)(void *context, uint32_t target, const struct edge *edge);
	/* Bytes that the object has beside its body, and where; NULL: nobody asks. */
	void (*own)(void *context, uint64_t address, uint64_t size);
	void *context;
};
void edges_of(struct view *view, uint32_t object, const struct edge_visitor *visitor);

/* The locals (and what is known of the stack) of a frame at an address, which is no object: from 3.11 on. */
void edges_of_frame(struct view *view, uint64_t frame, bool executing, const struct edge_visitor *visitor);

/* What a module written in C has for itself is its own, though its objects lead there too. Before any edges. -ENOMEM. */
int claim_module_states(struct view *view);

/* Whether objects of a type refer to nothing: numbers and texts. */
bool edges_none(const struct type *type);

/* view->rest: references that are left; what has some is held by what is no object. More than fit are in view->many. */
enum { REST_MANY = 253, REST_IMMORTAL = 254, REST_UNKNOWN = 255 };

static inline bool rest_left(const struct view *view, uint32_t object)
{
	return view->rest[object] > 0 && view->rest[object] <= REST_MANY;
}

/* One of them has been found. There can be more than are counted. */
static inline void rest_take(struct view *view, uint32_t object)
{
	struct pl_table_entry *entry;

	if (!rest_left(view, object))
		return;
	if (view->rest[object] < REST_MANY) {
		view->rest[object]--;
		return;
	}
	entry = pl_table_find(&view->many, object);
	if (!entry || --entry->value[0] < REST_MANY)
		view->rest[object] = REST_MANY - 1;
}

#define REFERENCES_WILD (INT64_C(1) << 29)

/* Fills view->graph (but for the edges of number 0) and view->rest, and adds to view->sizes what objects own. */
int edges_find(struct view *view);

#endif
