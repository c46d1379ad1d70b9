"""One HTTP/1.1 connection of somebody who watches: requests in, answers out, everything bounded.

`h11` knows the protocol; here are the limits. A request has a size, a time to arrive and no body;
an answer has a time to be taken; between two requests a connection may be silent for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

MAX_REQUEST_SIZE: Final = 8 * 1024
READ_SIZE: Final = 4 * 1024
WRITE_SIZE: Final = 128 * 1024
REQUEST_SECONDS: Final = 10.0
"""From the first byte of a request to its last."""
ANSWER_SECONDS: Final = 30.0
"""For the client to take an answer."""
IDLE_SECONDS: Final = 120.0
"""Between requests: two of the longest usual scrape intervals."""

_METHODS: Final = (b"GET", b"HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: a path without its query, and the `Accept` header ("" for none)."""

    path: str
    accept: str


Answerer = Callable[[Question], Awaitable[Answer]]


def text_answer(status: int, text: str) -> Answer:
    """Return a line of plain text."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


class HttpConnection:
    """Serves one client until it leaves, breaks the rules or takes too long."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answerer: Answerer
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answerer = answerer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_SIZE)
        self.is_idle = True
        """Whether no request is under way."""

    async def serve(self) -> None:
        """Answer requests. Raises OSError (TimeoutError too) when the client is gone or too slow.

        The caller closes the connection.
        """
        # With a high-water mark of 0, drain() waits until the client has taken everything.
        self._writer.transport.set_write_buffer_limits(high=0)
        try:
            while (request := await self._request()) is not None:
                await self._answer(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
                self.is_idle = True
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(text_answer(error.error_status_hint, "not a request: try GET /"))

    async def _request(self) -> h11.Request | None:
        """Return the next request, None when there will be none."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(IDLE_SECONDS) as limit:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(READ_SIZE)
                if self.is_idle:
                    self.is_idle = False
                    limit.reschedule(loop.time() + REQUEST_SECONDS)
                self._http.receive_data(data)
        self.is_idle = False
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, request: h11.Request) -> None:
        if not isinstance(self._http.next_event(), h11.EndOfMessage):
            # What follows is not read, so the connection ends with this answer.
            await self._send(text_answer(413, "a request here has no body"))
        elif request.method not in _METHODS:
            await self._send(text_answer(405, "try GET"), ("Allow", "GET, HEAD"))
        else:
            accept = b",".join(value for name, value in request.headers if name == b"accept")
            path = request.target.partition(b"?")[0]
            question = Question(path.decode("latin-1"), accept.decode("latin-1"))
            answer = await self._answerer(question)
            await self._send(answer, has_body=request.method != b"HEAD")

    async def _send(self, answer: Answer, *more: tuple[str, str], has_body: bool = True) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            *more,
        ]
        status = HTTPStatus(answer.status)
        events: list[h11.Event] = [
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        ]
        if has_body:
            events.append(h11.Data(data=answer.body))
        events.append(h11.EndOfMessage())
        async with asyncio.timeout(ANSWER_SECONDS):
            for event in events:
                data = memoryview(self._http.send(event) or b"")
                # All at once would hold up everybody else while it is copied.
                for start in range(0, len(data), WRITE_SIZE):
                    self._writer.write(data[start : start + WRITE_SIZE])
                    await self._writer.drain()
