# SPDX-License-Identifier: MIT
"""Makes line_tables.inc: line tables of real code objects, and what PyCode_Addr2Line() says of them.

    for python in PYTHONS; do $python make_line_tables.py; done > line_tables.inc

Runs on Python 3.6 to 3.13. One row for each code object: minor version, version, name, first line,
table (hex), bytes of bytecode, and "offset:line" wherever the line changes (0: no line).
"""
import ctypes
import sys
import types

SOURCE = '''
import contextlib

def jumps(a):
    x = 1
%(gap)s
    y = a(x,
          2,
%(small_gap)s
          (3 +
           x))
%(gap)s
    return y

def backwards(a, b):
    return a(
%(gap)s
        b
    ) + a(b,
        a(
            b)
    ).c.d(
        1)

def long_line(a):
    return [%(many)s]

@jumps
@backwards
def decorated(a=[x for x in range(3)
                 if x],
              *, b=1):
    def inner(c):
        nonlocal a
        a = c
        return lambda: (c,
                        a)
    return inner

def finals(a):
    try:
        with contextlib.suppress(a), \\
                a as b:
            for i in range(3):
                if i:
                    continue
                while b:
                    b -= 1
                    break
            else:
                return i
    except (ValueError,
            KeyError) as e:
        raise e
    except:
        pass
    finally:
        del a
    assert a, \\
        "no"

def comprehensions(a):
    return {
        k: [
            (v,
             w)
            for v in k
            if v
            for w in v
        ]
        for k in a
    }

def generators(a):
    while True:
        x = yield (
            a)
        yield from x
        if not x:
            return

async def asynchronous(a):
    async with a as b:
        async for c in b:
            await c(
                a)
    return [d async for d in b if d]

class Body(jumps,
           metaclass=type):
    """Doc.

    String.
    """
    x = 1
    def method(self): return super().method(
        self)

def chain(a):
    a.b = c = d = (
        a.b
        .c()
        .d(lambda: 1,
           k=2)
    )
    a[c:d] += 1 if a else (
        2 if d else
        3)
    global g
    g = f"{a}{c!r:>{d}}"
    return a < \\
        c < \\
        d and not \\
        g

def empty(): pass
'''


def source():
    return SOURCE % {"gap": "\n" * 300, "small_gap": "\n" * 140,
                     "many": ", ".join("a(%d, a.b%d)" % (i, i) for i in range(60))}


def codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def lines(code):
    addr2line = ctypes.pythonapi.PyCode_Addr2Line
    addr2line.argtypes = [ctypes.py_object, ctypes.c_int]
    last = None
    for offset in range(0, len(code.co_code), 2):
        line = max(addr2line(code, offset), 0)
        if line != last:
            yield "%d:%d" % (offset, line)
        last = line


def main():
    for code in codes(compile(source(), "lines.py", "exec")):
        table = code.co_linetable if sys.version_info >= (3, 10) else code.co_lnotab
        print('{ %d, "%d.%d.%d", "%s", %d, "%s", %d,\n  "%s" },' % (
            (sys.version_info[1],) + sys.version_info[:3] + (
                code.co_name, code.co_firstlineno, table.hex(), len(code.co_code), " ".join(lines(code)))))


if __name__ == "__main__":
    print("/* %s: by make_line_tables.py */" % sys.version.split()[0])
    main()
