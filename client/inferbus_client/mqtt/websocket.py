"""WebSocket frames, read piece by piece (RFC 6455, section 5).

A broker may send a whole message as one frame. paho keeps all that it has read of a frame, and copies it anew with
every read: a stranger's 40 MB took 60 MB of memory and two seconds, and the time grows with their square. Here what
has arrived is handed on, and forgotten.
"""

from __future__ import annotations

from typing import Any, Final

_CONTROL: Final = 0x8
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_MASKED: Final = 0x80
# How many bytes of length follow the head's two, by what stands for the length there.
_MORE_LENGTH: Final = {126: 2, 127: 8}


class PiecewiseWebsocket:
    """Stands where paho has its own WebSocket, which goes on to do everything but the reading.

    Args:
        paho_s: paho's, with the handshake behind it.
    """

    def __init__(self, paho_s: Any) -> None:
        self._paho_s = paho_s
        self._socket = paho_s._socket  # noqa: SLF001 - paho's wrapper shows its socket to nobody
        #: What has been read of a frame's head, or of a control frame.
        self._head = bytearray()
        self._left = 0

    def recv(self, length: int) -> bytes:
        """What has arrived of the messages, `length` bytes at most; nothing where the connection ends.

        Raises:
            BlockingIOError: nothing has.
        """
        while not self._left:
            if not self._begin_frame():
                return b""
        piece: bytes = self._socket.recv(min(length, self._left))
        self._left -= len(piece)
        return piece

    def _begin_frame(self) -> bool:
        """Read a frame's head, and all of a control frame; False where the connection ends."""
        if not self._read_head(2):
            return False
        kind, length, head = self._head[0] & 0x0F, self._head[1], 2
        if length in _MORE_LENGTH:
            head += _MORE_LENGTH[length]
            if not self._read_head(head):
                return False
            length = int.from_bytes(self._head[2:head], "big")
        elif length & _MASKED:
            return False  # a server must not mask (section 5.1)
        if kind & _CONTROL:
            return self._read_head(head + length) and self._answer(kind, bytes(self._take_head()[head:]))
        self._take_head()
        self._left = length
        return True

    def _read_head(self, size: int) -> bool:
        """Read on until there are `size` bytes of it; they are kept where the rest has yet to arrive."""
        while len(self._head) < size:
            piece = self._socket.recv(size - len(self._head))
            if not piece:
                return False
            self._head += piece
        return True

    def _take_head(self) -> bytearray:
        head, self._head = self._head, bytearray()
        return head

    def _answer(self, kind: int, payload: bytes) -> bool:
        """Answer a control frame; False where it ends the connection."""
        if kind == _PING:
            paho_s = self._paho_s
            pong = paho_s._create_frame(_PONG, bytearray(payload))  # noqa: SLF001 - paho's, as all writing is
            if paho_s._sendbuffer:  # noqa: SLF001 - half a frame is on its way, which nothing may interrupt
                paho_s._sendbuffer.extend(pong)  # noqa: SLF001
            else:
                self._socket.send(pong)
        return kind != _CLOSE

    def send(self, data: bytes | bytearray) -> int:
        sent: int = self._paho_s.send(data)
        return sent

    def close(self) -> None:
        self._paho_s.close()

    def fileno(self) -> int:
        number: int = self._paho_s.fileno()
        return number

    def pending(self) -> int:
        pending: int = self._paho_s.pending()
        return pending

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - as a socket has it
        self._paho_s.setblocking(flag)
