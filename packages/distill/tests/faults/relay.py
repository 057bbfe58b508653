"""What stands between a client and a server, and can fail."""

import socket
import threading


class Relay:
    """A TCP relay before the real server that refuses, swallows, or passes on."""

    def __init__(self, target: int) -> None:
        self.target, self.mode = target, "swallow"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            self.kept.append(client)
            if self.mode == "pass":
                server = socket.create_connection(("127.0.0.1", self.target))
                for a, b in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(a, b), daemon=True).start()
            elif self.mode == "refuse":
                client.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def drop_all(self) -> None:
        for client in self.kept:
            client.close()
