"""A client of the embedded endpoint that is not ours: Apache Qpid Proton, which also speaks AMQP in Corda's bridges (as Java).

Prints one JSON object: what it saw. The Rust test that starts it judges that.
"""

import json
import sys

from proton import Message
from proton.handlers import MessagingHandler
from proton.reactor import Container


class Client(MessagingHandler):
    """Sends requests one after another and ends once each has its outcome and, if accepted, its three answers."""

    def __init__(self, url, user, password, address, inbox, bodies):
        # The answers must be accepted while a request is still unsettled, so settlement is left to the handler's defaults.
        super().__init__(prefetch=10, auto_accept=True)
        self.url, self.user, self.password = url, user, password
        self.address, self.inbox, self.bodies = address, inbox, bodies
        self.seen = {"outcomes": [], "answers": [], "errors": []}
        self.sent = 0

    def on_start(self, event):
        self.connection = event.container.connect(
            self.url,
            user=self.user,
            password=self.password,
            allowed_mechs="PLAIN",
            allow_insecure_mechs=True,
            reconnect=False,
            heartbeat=2,
        )
        self.receiver = event.container.create_receiver(self.connection, self.inbox, dynamic=self.inbox is None)
        self.sender = event.container.create_sender(self.connection, self.address)

    def on_link_opened(self, event):
        if event.link == self.receiver:
            self.reply_to = self.receiver.remote_source.address

    def on_sendable(self, event):
        if self.sent < len(self.bodies) and self.sent == len(self.seen["outcomes"]):
            body, self.sent = self.bodies[self.sent], self.sent + 1
            message = Message(id=f"request-{self.sent}", body=body, inferred=isinstance(body, bytes), durable=True)
            message.properties = {"platform-version": 12, "_AMQ_DUPL_ID": f"dup-{self.sent}"}
            if self.inbox is None:
                message.reply_to = self.reply_to
            self.sender.send(message)

    def on_message(self, event):
        message = event.message
        self.seen["answers"].append(
            {
                "body": bytes(message.body).decode(),
                "durable": message.durable,
                "correlation": message.correlation_id,
                "properties": {str(key): value for key, value in message.properties.items()},
            }
        )

    def outcome(self, event, outcome):
        self.seen["outcomes"].append(outcome)
        if len(self.seen["outcomes"]) == len(self.bodies):
            self.connection.close()
        else:
            self.on_sendable(event)

    def on_accepted(self, event):
        self.outcome(event, "accepted")

    def on_released(self, event):
        self.outcome(event, "released")

    def on_rejected(self, event):
        self.outcome(event, "rejected: " + event.delivery.remote.condition.description)

    def on_link_error(self, event):
        self.seen["errors"].append(event.link.remote_condition.name)
        self.connection.close()

    def on_transport_error(self, event):
        self.seen["errors"].append(event.transport.condition.name)


def main():
    url, user, password, address, inbox = sys.argv[1:6]
    bodies = {
        "good": [b"one", b"two", b"x" * (1 << 20)],
        # A map is no request: it is rejected, and the next one is fine.
        "mixed": [{"no": "request"}, b"fine"],
    }[sys.argv[6]]
    client = Client(url, user, password, address, inbox or None, bodies)
    Container(client).run()
    print(json.dumps(client.seen))


main()
