"""An asyncio service whose connections listen to a bus, and are never taken from it: chat.py PORT"""
import asyncio
import sys


class Bus:
    def __init__(self):
        self.listeners = []

    def subscribe(self, listener):
        self.listeners.append(listener)


class Session:
    def __init__(self, writer):
        self.writer = writer
        self.history = []

    def on_message(self, text):
        self.history.append(text)


bus = Bus()


async def connected(reader, writer):
    session = Session(writer)
    bus.subscribe(session.on_message)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 204 No Content\r\n\r\n")
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
