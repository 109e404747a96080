package judge;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import java.io.NotSerializableException;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.serialization.SerializedBytes;
import net.corda.node.services.statemachine.DataSessionMessage;
import net.corda.node.services.statemachine.EndSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessagePayload;
import net.corda.node.services.statemachine.InitialSessionMessage;
import net.corda.node.services.statemachine.SessionId;
import net.corda.node.services.statemachine.SessionMessage;
import org.apache.qpid.protonj2.client.AdvancedMessage;
import org.apache.qpid.protonj2.client.Client;
import org.apache.qpid.protonj2.client.ClientOptions;
import org.apache.qpid.protonj2.client.Connection;
import org.apache.qpid.protonj2.client.ConnectionOptions;
import org.apache.qpid.protonj2.client.Delivery;
import org.apache.qpid.protonj2.client.DeliveryState;
import org.apache.qpid.protonj2.client.DurabilityMode;
import org.apache.qpid.protonj2.client.Message;
import org.apache.qpid.protonj2.client.Receiver;
import org.apache.qpid.protonj2.client.ReceiverOptions;
import org.apache.qpid.protonj2.client.Sender;
import org.apache.qpid.protonj2.client.SenderOptions;
import org.apache.qpid.protonj2.client.Tracker;
import org.apache.qpid.protonj2.client.exceptions.ClientException;
import org.apache.qpid.protonj2.types.messaging.Data;
import org.apache.qpid.protonj2.types.messaging.Properties;

/**
 * A Corda node as the worker sees it: one AMQP connection that sends session messages as a node's bridge does, and an
 * inbox that takes replies under the conditions under which a node takes them.
 */
final class Node implements AutoCloseable {
    static final Duration PATIENCE = Conversation.PATIENCE;

    /** A node closes a connection that was silent for this long. */
    private static final int IDLE_MILLISECONDS = 10_000;

    /** The flow that nodes name when they ask for notarisation. */
    static final String CLIENT_FLOW = "net.corda.core.flows.NotaryFlow$Client";

    /** Longer ids do not fit into the table in which a node keeps them. */
    private static final int DEDUPLICATION_ID_LENGTH_MAX = 64;

    private final Network network;
    final Member member;
    private final Connection connection;
    private final Sender toService;
    private final Map<String, Sender> toWorkers = new ConcurrentHashMap<>();
    private final Receiver inbox;
    private final Thread inboxThread;
    private final Map<Long, Conversation> conversations = new ConcurrentHashMap<>();
    private final Set<String> seen = ConcurrentHashMap.newKeySet();
    private final ConcurrentLinkedQueue<String> complaints = new ConcurrentLinkedQueue<>();
    private final SecureRandom random = new SecureRandom();
    private final String senderUuid = UUID.randomUUID().toString();
    private final AtomicLong sendSequence = new AtomicLong();

    Node(Client client, String host, int port, Network network, Member member) throws ClientException {
        this.network = network;
        this.member = member;
        connection = connect(client, host, port, member.party().getName().toString(), member.password());
        toService = openSender(Network.inbox(network.notary()));
        // As many as a node's broker takes ahead; accepted one by one, after they were looked at.
        ReceiverOptions options = new ReceiverOptions().autoAccept(false).creditWindow(100);
        inbox = connection.openReceiver(Network.inbox(member.party()), options);
        inboxThread = new Thread(this::receive, "inbox of " + member.party().getName().getOrganisation());
        inboxThread.setDaemon(true);
        inboxThread.start();
    }

    static Client client() {
        return Client.create(new ClientOptions().id("CORDA:" + UUID.randomUUID()));
    }

    static Connection connect(Client client, String host, int port, String user, String password)
            throws ClientException {
        ConnectionOptions options = new ConnectionOptions().user(user).password(password)
                .maxFrameSize(131_072).openTimeout(PATIENCE.toMillis()).sendTimeout(PATIENCE.toMillis())
                .requestTimeout(PATIENCE.toMillis()).idleTimeout(IDLE_MILLISECONDS);
        options.saslOptions().addAllowedMechanism("PLAIN");
        Connection connection = client.connect(host, port, options);
        await(connection.openFuture());
        return connection;
    }

    static <T> T await(Future<T> future) throws ClientException {
        try {
            return future.get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (ExecutionException e) {
            throw e.getCause() instanceof ClientException cause ? cause : new ClientException("failed", e.getCause());
        } catch (TimeoutException e) {
            throw new ClientException("nothing within " + PATIENCE, e);
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
    }

    private Sender openSender(String address) throws ClientException {
        SenderOptions options = new SenderOptions().linkName(UUID.randomUUID().toString());
        options.targetOptions().durabilityMode(DurabilityMode.UNSETTLED_STATE);
        Sender sender = connection.openSender(address, options);
        await(sender.openFuture());
        return sender;
    }

    /** A message on its way, and the session it starts. */
    record Started(Conversation conversation, Tracker tracker) {}

    /** Starts a session. `firstPayload` may be null: then it follows after the confirm. */
    Started start(String flow, SerializedBytes<Object> firstPayload) throws ClientException {
        return start(member.party(), flow, firstPayload);
    }

    /** Asks for notarisation under the name of another party, which a node never does. */
    Started startAs(Party claimed, SerializedBytes<Object> firstPayload) throws ClientException {
        return start(claimed, CLIENT_FLOW, firstPayload);
    }

    private Started start(Party claimed, String flow, SerializedBytes<Object> firstPayload) throws ClientException {
        Conversation conversation = new Conversation(random.nextLong(), random.nextLong());
        conversations.put(conversation.sessionId, conversation);
        return new Started(conversation, sendStart(claimed, conversation, flow, firstPayload));
    }

    /** Sends the start of a session once more: the same message, as after a lost connection. */
    Tracker startAgain(Conversation conversation, SerializedBytes<Object> firstPayload) throws ClientException {
        return sendStart(member.party(), conversation, CLIENT_FLOW, firstPayload);
    }

    private Tracker sendStart(Party claimed, Conversation conversation, String flow,
            SerializedBytes<Object> firstPayload) throws ClientException {
        SessionId sessionId = new SessionId(conversation.sessionId);
        InitialSessionMessage message = new InitialSessionMessage(
                sessionId, conversation.entropy, flow, 1, "corda-core-4.10", firstPayload, null);
        AdvancedMessage<byte[]> carried = carry(Corda.serialize(message).getBytes(), deduplicationId(conversation, 0));
        carried.property("_AMQ_VALIDATED_USER", claimed.getName().toString());
        carried.property("corda_p2p_message_type", "session_init");
        return toService.send(carried);
    }

    /** Sends data within a confirmed session, to the worker that confirmed it. */
    Tracker follow(Conversation conversation, SerializedBytes<Object> data) throws Exception {
        return existing(conversation, new DataSessionMessage(data), 1);
    }

    /** Ends a session, as a node does when its top-level flow ends. */
    Tracker end(Conversation conversation) throws Exception {
        return existing(conversation, EndSessionMessage.INSTANCE, 2);
    }

    private Tracker existing(Conversation conversation, ExistingSessionMessagePayload payload, int suspends)
            throws Exception {
        Conversation.Peer peer = conversation.awaitConfirm();
        String address = Network.inbox(peer.party());
        Sender sender = toWorkers.get(address);
        if (sender == null) {
            sender = openSender(address);
            toWorkers.put(address, sender);
        }
        ExistingSessionMessage message = new ExistingSessionMessage(new SessionId(peer.sessionId()), payload);
        return sender.send(carry(Corda.serialize(message).getBytes(), deduplicationId(conversation, suspends)));
    }

    private static String deduplicationId(Conversation conversation, int suspends) {
        return "N-R-" + conversation.sessionId + "-" + conversation.entropy + "-" + suspends + "-0";
    }

    /** Sends bytes that need not be a session message to the service. */
    Tracker sendRaw(byte[] body) throws ClientException {
        return toService.send(carry(body, "R-" + random.nextLong()));
    }

    /** The AMQP message of a session message, with all the properties that a bridge forwards. */
    private AdvancedMessage<byte[]> carry(byte[] body, String deduplicationId) throws ClientException {
        AdvancedMessage<byte[]> message = Message.create(body).durable(true).toAdvancedMessage();
        message.properties(new Properties());
        message.property("platform-topic", "platform.session");
        message.property("platform-version", Transactions.PLATFORM_VERSION);
        message.property("corda-vendor", "Corda Community Edition");
        message.property("release-version", "4.10");
        message.property("_AMQ_DUPL_ID", deduplicationId);
        message.property("_AMQ_VALIDATED_USER", member.party().getName().toString());
        message.property("sender-uuid", senderUuid);
        message.property("send-seq-no", sendSequence.getAndIncrement());
        return message;
    }

    /** What a bridge counts as done: accepted and settled by the other side. Anything else it sends again. */
    static void awaitAccepted(Tracker tracker) throws ClientException {
        DeliveryState.Type outcome = awaitOutcome(tracker);
        require(outcome == DeliveryState.Type.ACCEPTED, "the message was not accepted: %s", tracker.remoteState());
    }

    static DeliveryState.Type awaitOutcome(Tracker tracker) throws ClientException {
        tracker.awaitSettlement(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        return tracker.remoteState().getType();
    }

    private void receive() {
        while (true) {
            try {
                Delivery delivery = inbox.receive();
                try {
                    take(delivery);
                } catch (Exception | AssertionError e) {
                    complaints.add(e.toString());
                }
                delivery.accept();
            } catch (ClientException closed) {
                return;
            }
        }
    }

    private void take(Delivery delivery) throws ClientException, NotSerializableException {
        AdvancedMessage<Object> message = delivery.message().toAdvancedMessage();
        // A node drops or refuses what does not meet these.
        requireEqual("platform.session", message.property("platform-topic"), "platform-topic of a reply");
        require(message.property("platform-version") instanceof Integer, "a reply without an int platform-version");
        require(message.property("_AMQ_DUPL_ID") instanceof String, "a reply without a deduplication id");
        require(message.property("_AMQ_VALIDATED_USER") instanceof String, "a reply without a sender");
        require(message.bodySections().size() == 1, "a reply with other than one body section");
        require(message.bodySections().iterator().next() instanceof Data, "a reply whose body is not data");

        String id = (String) message.property("_AMQ_DUPL_ID");
        require(id.length() <= DEDUPLICATION_ID_LENGTH_MAX, "a deduplication id of %d characters", id.length());
        Party sender = network.nodeNamed(CordaX500Name.parse((String) message.property("_AMQ_VALIDATED_USER")));
        require(network.isWorker(sender), "a reply from %s, which is no worker", sender);
        if (!seen.add(id)) {
            return;
        }
        SessionMessage decoded = Corda.deserialize(SessionMessage.class, (byte[]) message.body());
        require(decoded instanceof ExistingSessionMessage, "a reply that starts a session");
        ExistingSessionMessage existing = (ExistingSessionMessage) decoded;
        Conversation conversation = conversations.get(existing.getRecipientSessionId().getToLong());
        require(conversation != null, "a reply to a session that was never started");
        conversation.receive(sender, existing.getPayload());
    }

    /** Fails if anything arrived that a node would not have taken. */
    void requireNoComplaints() {
        require(complaints.isEmpty(), "%s", complaints);
        conversations.values().forEach(
                conversation -> require(conversation.violation() == null, "%s", conversation.violation()));
    }

    /** How many distinct messages arrived. */
    int received() {
        return seen.size();
    }

    @Override
    public void close() {
        connection.close();
    }
}
