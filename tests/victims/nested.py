# SPDX-License-Identifier: MIT
"""What a deallocator must get right: deep nests, subclasses, finalizers that run Python in its midst.

Runs on every Python from 3.6 on.
"""
import gc
import sys
import time
import weakref

try:
    from contextvars import ContextVar, copy_context
except ImportError:  # 3.6
    copy_context = None
else:
    VARIABLE = ContextVar("VARIABLE")

DEEP = 20000  # far deeper than the stack is: CPython's trashcan has to see the nest


class SubList(list):
    def tell(self):
        return self[0]


class SubDict(dict):
    pass


class SubTuple(tuple):
    pass


class SubFloat(float):
    pass


class Item(object):
    """Its finalizer allocates, gives the GIL away, and looks at every object there is."""
    wrong = None
    look = False

    def __del__(self):
        floats = [i * 0.5 for i in range(20)]
        time.sleep(0)
        if sum(floats) != 95:
            Item.wrong = "floats in a finalizer"
        if Item.look:
            Item.look = False
            for thing in gc.get_objects():
                kind = type(thing)
                if kind.__name__ in ("list", "dict", "tuple", "float") and kind not in (list, dict, tuple, float):
                    if kind.__module__ == "builtins":
                        Item.wrong = "a second type %s" % kind.__name__


class Phoenix(object):
    """Comes back to life in its finalizer, which runs while the list that had it is released."""
    risen = []

    def __del__(self):
        Phoenix.risen.append(self)


def nest(make, depth):
    thing = None
    for _ in range(depth):
        thing = make(thing)
    return thing


NESTS = (lambda x: [x], lambda x: (x,), lambda x: {"key": x}, lambda x: SubList([x]), lambda x: SubDict(key=x),
         lambda x: SubTuple((x,)), lambda x: [({"key": x},)])


def objects_of_few_words(seed):
    """Methods, built-in functions, frames, slices and contexts, in larger numbers than are parked."""
    items = [Phoenix.risen.append for _ in range(300)], [[seed].__len__ for _ in range(300)]
    methods = [SubList([i]).tell for i in range(300)]
    frames = [(lambda i=i: sys._getframe())() for i in range(250)]
    slices = [slice(i, [seed]) for i in range(60)]
    if not all(method() == i for i, method in enumerate(methods)) or items[1][7]() != 1:
        return "methods"
    if not all(frame.f_locals["i"] == i for i, frame in enumerate(frames)):
        return "frames"
    if not all(thing.start == i and thing.stop == [seed] for i, thing in enumerate(slices)):
        return "slices"
    if copy_context:
        contexts = [copy_context() for _ in range(300)]
        dead = []
        references = [weakref.ref(context, dead.append) for context in contexts]
        for i, context in enumerate(contexts):
            context.run(VARIABLE.set, [i, seed])
        if not all(context[VARIABLE] == [i, seed] for i, context in enumerate(contexts)):
            return "contexts"
        del contexts, context
        if len(dead) > len(references):  # another thread's gc.get_objects() may hold some yet
            return "contexts that die twice"
    return None


def nested_round(seed):
    """Makes and drops; returns what is wrong, or None."""
    for make in NESTS:
        nest(make, DEEP if seed % 50 == 0 else 120)
    lists = [[i] for i in range(60)]
    dicts = [{i: i} for i in range(60)]
    tuples = [(i, seed) for i in range(60)]
    floats = [i * 0.25 for i in range(60)] + [SubFloat(i) for i in range(10)]
    if not all(type(thing) is list and thing == [i] for i, thing in enumerate(lists)):
        return "lists"
    if not all(type(thing) is dict and thing == {i: i} for i, thing in enumerate(dicts)):
        return "dicts"
    if not all(type(thing) is tuple and thing == (i, seed) for i, thing in enumerate(tuples)):
        return "tuples"
    if sum(floats) != 487.5:
        return "floats"
    Item.look = seed % 20 == 0
    held = SubList([Item()])
    seen = weakref.ref(held)
    things = [[Item()], {"key": Item()}, (Item(), [Item()]), held, [Phoenix()]]
    del held, things
    for _ in range(100):  # another thread's gc.get_objects() may hold it yet
        if seen() is None:
            break
        time.sleep(0.001)
    else:
        return "a weak reference"
    while Phoenix.risen:
        try:
            risen = Phoenix.risen.pop()
        except IndexError:  # another thread took the last one
            break
        if type(risen) is not Phoenix:
            return "what came back to life"
    loop = []
    loop.append({"loop": (loop, Item())})
    del loop
    if seed % 20 == 0:
        gc.collect()
    return Item.wrong or objects_of_few_words(seed)
