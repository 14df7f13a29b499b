"""The WebSocket echo server that Autobahn's cases run against, directly and through the gateway.

Bytes are fed to the protocol so that how they were cut into segments on their way changes nothing: a
message before a protocol error in the same segment is answered as if the two had come apart. The verdict
of a case would otherwise depend on timing, with or without a gateway.
"""

import asyncio
import sys

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

# Cases whose verdict depends on segments send less than this at once.
SMALL = 4096


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
        self.message = []
        self.text = False

    def data_received(self, data):
        pieces = [data]
        if len(data) <= SMALL and self.protocol.state is not State.CONNECTING:
            pieces = [data[i : i + 1] for i in range(len(data))]
        for piece in pieces:
            self.protocol.receive_data(piece)
            self.step()

    def eof_received(self):
        self.protocol.receive_eof()
        self.step()

    def step(self):
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self.frame(event)
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.write_eof()

    def frame(self, frame):
        if frame.opcode is not Opcode.CONT:
            self.text = frame.opcode is Opcode.TEXT
            self.message = []
        self.message.append(frame.data)
        if not frame.fin or self.protocol.state is not State.OPEN:
            return
        whole = b"".join(self.message)
        self.message = []
        if not self.text:
            self.protocol.send_binary(whole)
            return
        try:
            whole.decode()
        except UnicodeDecodeError:
            self.protocol.fail(1007, "invalid UTF-8")
        else:
            self.protocol.send_text(whole)


async def main():
    loop = asyncio.get_running_loop()
    async with await loop.create_server(Echo, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


asyncio.run(main())
