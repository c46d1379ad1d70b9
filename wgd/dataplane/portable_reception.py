"""Handshake messages: from the sockets through the gate to the control plane."""

import contextlib

from wgd.addresses import Endpoint
from wgd.constants import HANDSHAKE_TRAFFIC_CLASS
from wgd.dataplane.gate import Gate, Lane
from wgd.dataplane.handshake_queue import HandshakeQueue
from wgd.dataplane.interface import HandshakeMessage
from wgd.dataplane.portable_outbound import Outbound
from wgd.dataplane.portable_state import EngineState
from wgd.noise.messages import MessageType, message_type
from wgd.noise.primitives import Random


class Reception:
    """Lets in, answers by a cookie, or drops. Nothing in here raises because of a datagram."""

    def __init__(self, state: EngineState, outbound: Outbound, random: Random) -> None:
        self.gate = Gate(state.drops, random)
        self.queue = HandshakeQueue()
        self._state = state
        self._outbound = outbound

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int) -> None:
        """Take anything that is not a transport message."""
        state = self._state
        kind = message_type(datagram)
        answers = None
        match kind:
            case MessageType.INITIATION:
                pass
            case MessageType.RESPONSE | MessageType.COOKIE_REPLY:
                offset = 8 if kind is MessageType.RESPONSE else 4
                answers = int.from_bytes(datagram[offset : offset + 4], "little")
                # A response answers an initiation; a cookie reply a response, too, whose index is
                # a session's already.
                is_awaited = answers in state.open_initiations
                if kind is MessageType.COOKIE_REPLY:
                    is_awaited |= answers in state.sessions
                if not is_awaited:
                    state.drops.unknown_index += 1
                    return
            case _:
                state.drops.malformed_datagram += 1
                return
        if kind is MessageType.COOKIE_REPLY and answers is not None:
            if self.gate.judge_cookie_reply(answers, now_ns):
                self._push(Lane.COOKIE_REPLIES, datagram, source, now_ns)
            else:
                state.drops.under_load += 1
            return
        verdict = self.gate.judge(datagram, source, answers, self._peer_endpoints, now_ns)
        if isinstance(verdict, Lane):
            self._push(verdict, datagram, source, now_ns)
        elif verdict is not None:
            with contextlib.suppress(OSError):  # counted
                self._outbound.send_to(source, verdict, HANDSHAKE_TRAFFIC_CLASS)

    def _push(self, lane: Lane, datagram: bytes, source: Endpoint, now_ns: int) -> None:
        if self.queue.push(lane, HandshakeMessage(datagram, source)):
            self._state.drops.handshake_queue_full += 1
        self.gate.note_queued(self.queue.load, now_ns)
        self._state.wakeup.set()

    def _peer_endpoints(self) -> set[tuple[str, int]]:
        peers = self._state.peers.values()
        return {peer.endpoint[:2] for peer in peers if peer.endpoint is not None}
