# SPDX-License-Identifier: MIT
"""What a container with the default seccomp profile and a debug container beside it come down to: processes in one
PID namespace, under a filter that was there before them, with no capability but CAP_SYS_PTRACE.

    unshare --pid --fork --mount-proc python3 container.py WHO COMMAND...

Runs the COMMAND, with {} in it replaced by the PID of a Python that leaks: of process 1 if WHO is `first`, of a child
of it if `second`, and if `own` of a child that has put on a filter of its own. Ends with the command's status, or with
99 if the Python has not survived.
"""
import ctypes
import os
import struct
import subprocess
import sys
import threading
import time

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, NOT_PERMITTED, KILL = 0x7FFF0000, 0x00050001, 0x80000000
SYS_MADVISE, SYS_KEYCTL = 28, 250
kept = []


def filter_calls(number, answer, no_new_privileges):
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in (
        (LOAD_NUMBER, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, answer), (RETURN, 0, 0, ALLOW)))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value)
    if no_new_privileges and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("no_new_privs: " + os.strerror(ctypes.get_errno()))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))


def leak():
    while True:
        kept.extend([bytes(1000 + i) for i in range(50)])  # leaks here
        time.sleep(0.01)


def main():
    step, who, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    if step == "leak":
        if who == "own":
            filter_calls(SYS_MADVISE, KILL, True)
        print("ready", flush=True)
        leak()
    if step != "inside":
        filter_calls(SYS_KEYCTL, NOT_PERMITTED, False)
        os.execvp("setpriv", ["setpriv", "--bounding-set=-all,+sys_ptrace", "--inh-caps=-all", sys.executable, __file__,
                              "inside"] + sys.argv[1:])
    target = os.getpid()
    child = None
    if who == "first":
        threading.Thread(target=leak, daemon=True).start()
    else:
        child = subprocess.Popen([sys.executable, __file__, "leak", who], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        target = child.pid
    status = subprocess.call([word.replace("{}", str(target)) for word in command], close_fds=True)
    time.sleep(0.5)
    os._exit(99 if child and child.poll() is not None else status)


if __name__ == "__main__":
    main()
