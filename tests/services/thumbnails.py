"""A thread pool whose job has a default argument that it adds to, and leaves finalizers behind: thumbnails.py"""
import concurrent.futures
import time
import weakref


class Picture:
    def __init__(self, name, pixels):
        self.name = name
        self.pixels = pixels


ALBUM = Picture("album", b"")


def remove(name, pixels):
    pass


def make(number, seen=[]):
    picture = Picture("picture %d" % number, bytes(2000))
    weakref.finalize(ALBUM, remove, picture.name, picture.pixels)
    seen.append((number, picture.name, [number] * 20))
    return len(picture.pixels)


if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for number in range(10 ** 9):
            pool.submit(make, number).result()
            time.sleep(0.01)
