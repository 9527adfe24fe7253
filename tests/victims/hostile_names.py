# SPDX-License-Identifier: MIT
"""Leaks from functions and files whose names try to be markup, script, a formula, or a line of their own.

`leak` leaks and says "leaked".
"""
import sys

NAMES = ["</script><script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">",
         "<!--<script>", "=1+1,\"x\"\r\ny", "a;b c 1", "\u202e\u2028\x00\x1b[2J\x85", "]]>&lt;", "{\"__proto__\": 1}",
         "\ud800", "__proto__", "constructor"]
kept = []


def make(name):
    # The line of source is as bad as the names are.
    code = compile("def f():\n    return [object() for _ in range(50)]  # %s\n" % name.replace("\x00", "").replace("\ud800", ""),
                   name.replace("\x00", "") or "?", "exec") if "\n" not in name and "\ud800" not in name else \
        compile("def f():\n    return [object() for _ in range(50)]\n", name, "exec")
    space = {}
    exec(code, space)
    function = space["f"]
    try:
        function.__code__ = function.__code__.replace(co_name=name)
    except (AttributeError, ValueError, TypeError):
        pass
    return function


functions = [make(name) for name in NAMES]
print("ready", flush=True)
for line in iter(sys.stdin.readline, ""):
    kept.append([function() for function in functions])
    print("leaked", flush=True)
