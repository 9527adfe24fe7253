# SPDX-License-Identifier: MIT
"""A tree of instances that know their parents, built and dropped again."""


class Node:
    def __init__(self, value, parent):
        self.value = value
        self.parent = parent
        self.children = []
        if parent is not None:
            parent.children.append(self)

    def weight(self):
        return 1.5 * self.value + sum(child.weight() for child in self.children)


def loop(n):
    for i in range(n):
        root = Node(i, None)
        for k in range(30):
            node = Node(k, root)
            for m in range(5):
                Node(m, node)
        root.weight()
        for node in root.children:
            node.parent = None
            for leaf in node.children:
                leaf.parent = None
