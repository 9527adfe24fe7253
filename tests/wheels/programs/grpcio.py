# SPDX-License-Identifier: MIT
"""Channels that nobody closes."""
import grpc

KEPT = []


def keep(step):
    KEPT.append(grpc.insecure_channel("localhost:1", options=[("grpc.user_agent", "a" * 4096 + str(step))]))  # leak
    return None, step


def busy(step):
    with grpc.insecure_channel("localhost:1", options=[("grpc.user_agent", "b" * 4096 + str(step))]) as channel:
        return channel is not None
