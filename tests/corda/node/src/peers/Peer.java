package peers;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import io.netty.channel.EventLoopGroup;
import java.security.InvalidKeyException;
import java.security.SecureRandom;
import java.security.SignatureException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import judge.Conversation;
import judge.Corda;
import judge.Transactions;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.serialization.SerializedBytes;
import net.corda.core.transactions.WireTransaction;
import net.corda.core.utilities.NetworkHostAndPort;
import net.corda.node.services.statemachine.EndSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessage;
import net.corda.node.services.statemachine.InitialSessionMessage;
import net.corda.node.services.statemachine.SessionId;
import net.corda.node.services.statemachine.SessionMessage;
import net.corda.nodeapi.internal.config.CertificateStore;
import net.corda.nodeapi.internal.protonwrapper.messages.MessageStatus;
import net.corda.nodeapi.internal.protonwrapper.messages.ReceivedMessage;
import net.corda.nodeapi.internal.protonwrapper.messages.SendableMessage;
import net.corda.nodeapi.internal.protonwrapper.netty.AMQPClient;
import net.corda.nodeapi.internal.protonwrapper.netty.AMQPConfiguration;
import net.corda.nodeapi.internal.protonwrapper.netty.AMQPServer;
import net.corda.nodeapi.internal.protonwrapper.netty.ConnectionChange;
import net.corda.nodeapi.internal.protonwrapper.netty.RevocationConfig;
import net.corda.nodeapi.internal.protonwrapper.netty.RevocationConfigImpl;

/**
 * A node as workers see it: Corda's AMQP client as its bridge to each of them, Corda's AMQP server as the broker that
 * takes their answers. What is not accepted is sent again, as from a node's queue, by whichever bridge is connected.
 */
final class Peer implements AutoCloseable {
    /** The flow that nodes name when they ask for notarisation. */
    private static final String CLIENT_FLOW = "net.corda.core.flows.NotaryFlow$Client";

    /** Longer ids do not fit into the table in which a node keeps them. */
    private static final int DEDUPLICATION_ID_LENGTH_MAX = 64;

    /** A node sends again at once; here others share the processor. */
    private static final int AGAIN_MILLISECONDS = 50;

    /** More than anything that is sent here on purpose. */
    private static final int MESSAGE_BYTES_MAX = 64 << 20;

    private final Pool pool;
    private final EventLoopGroup threads;
    final Authority.Identity identity;
    final String inbox;
    private final AMQPServer broker;
    private final List<Bridge> bridges = new ArrayList<>();
    private final AtomicInteger turn = new AtomicInteger();
    /** Nothing goes out while no bridge is connected. */
    private final Queue<Outgoing> waiting = new ConcurrentLinkedQueue<>();
    private final Map<Long, Conversation> conversations = new ConcurrentHashMap<>();
    private final Set<String> seen = ConcurrentHashMap.newKeySet();
    private final Queue<String> complaints = new ConcurrentLinkedQueue<>();
    private final SecureRandom random = new SecureRandom();
    private final String senderUuid = UUID.randomUUID().toString();
    private final AtomicLong sendSequence = new AtomicLong();
    private final AtomicInteger rejected = new AtomicInteger();
    private volatile boolean taking = true;
    private volatile boolean closed;

    /** With its broker listening on `port`; no bridge yet. */
    Peer(Pool pool, Authority.Identity identity, int port, EventLoopGroup threads) {
        this.pool = pool;
        this.identity = identity;
        this.threads = threads;
        inbox = judge.Network.inbox(party());
        broker = new AMQPServer("127.0.0.1", port, configuration(identity.tls(), pool.authority.trust()));
        broker.getOnReceive().subscribe(this::take);
        broker.start();
    }

    /** Opens a bridge to each worker. */
    void connect() {
        for (Pool.Worker worker : pool.workers) {
            bridges.add(new Bridge(worker));
        }
        bridges.forEach(bridge -> bridge.client.start());
    }

    static AMQPConfiguration configuration(CertificateStore keys, CertificateStore trust) {
        return new AMQPConfiguration() {
            @Override
            public CertificateStore getKeyStore() {
                return keys;
            }

            @Override
            public CertificateStore getTrustStore() {
                return trust;
            }

            @Override
            public int getMaxMessageSize() {
                return MESSAGE_BYTES_MAX;
            }

            @Override
            public String getHealthCheckPhrase() {
                return null;
            }

            @Override
            public RevocationConfig getRevocationConfig() {
                // Development certificates name no list.
                return new RevocationConfigImpl(RevocationConfig.Mode.OFF, null);
            }
        };
    }

    Party party() {
        return identity.certificate().getParty();
    }

    boolean isConnected() {
        return !bridges.isEmpty() && bridges.stream().allMatch(bridge -> bridge.connected);
    }

    // --- requests ---------------------------------------------------------------------------------------------------

    /** A request on its way, whose conversation ends with the answer. */
    record Asked(WireTransaction transaction, Conversation conversation) {}

    Asked ask(WireTransaction transaction) throws InvalidKeyException, SignatureException {
        return new Asked(transaction, start(payload(transaction), null));
    }

    NotarisationPayload payload(WireTransaction transaction) throws InvalidKeyException, SignatureException {
        return Transactions.payload(Transactions.filtered(transaction), transaction.getInputs(), transaction.getId(),
                identity.keys());
    }

    /** Starts a session with whatever payload. `worker`: the only one that is asked, or null for any. */
    Conversation start(Object payload, Pool.Worker worker) {
        return start(prepare(payload), worker);
    }

    /** The first message of a session, and who waits for the answer. */
    record Prepared(Conversation conversation, byte[] message) {}

    Prepared prepare(Object payload) {
        Conversation conversation = new Conversation(random.nextLong(), random.nextLong());
        conversations.put(conversation.sessionId, conversation);
        @SuppressWarnings("unchecked")
        SerializedBytes<Object> first = (SerializedBytes<Object>) (SerializedBytes<?>) Corda.serialize(payload);
        InitialSessionMessage message = new InitialSessionMessage(new SessionId(conversation.sessionId),
                conversation.entropy, CLIENT_FLOW, 1, "corda-core-4.10", first, null);
        return new Prepared(conversation, Corda.serialize(message).getBytes());
    }

    Conversation start(Prepared prepared, Pool.Worker worker) {
        Conversation conversation = prepared.conversation();
        send(judge.Network.inbox(pool.notary()), prepared.message(), id(conversation, 0), worker);
        conversation.answered().whenComplete((answer, failure) -> end(conversation));
        return conversation;
    }

    /** As a node does when its flow ends; none to a session that was never confirmed or has failed. */
    private void end(Conversation conversation) {
        if (conversation.answered().isCompletedExceptionally()
                || !(conversation.answered().join() instanceof Conversation.Notarised)) {
            return;
        }
        try {
            Conversation.Peer peer = conversation.awaitConfirm();
            ExistingSessionMessage message =
                    new ExistingSessionMessage(new SessionId(peer.sessionId()), EndSessionMessage.INSTANCE);
            Pool.Worker worker = pool.workers.stream().filter(one -> one.party().equals(peer.party())).findFirst()
                    .orElseThrow(() -> new AssertionError("confirmed by " + peer.party() + ", which is no worker"));
            send(judge.Network.inbox(peer.party()), Corda.serialize(message).getBytes(), id(conversation, 2), worker);
        } catch (Exception | AssertionError e) {
            complaints.add(e.toString());
        }
    }

    private static String id(Conversation conversation, int suspends) {
        return "N-R-" + conversation.sessionId + "-" + conversation.entropy + "-" + suspends + "-0";
    }

    /** Sends bytes that need not be a session message to the service. Its outcomes are told one by one. */
    Outgoing sendRaw(byte[] body, Pool.Worker worker) {
        return send(judge.Network.inbox(pool.notary()), body, "R-" + random.nextLong(), worker);
    }

    // --- bridges ----------------------------------------------------------------------------------------------------

    /** A message in the node's queue. `worker`: the only one whose it is, or null. */
    final class Outgoing {
        private final String address;
        private final byte[] body;
        private final Map<String, Object> properties;
        private final Pool.Worker worker;
        /** What became of it, each time. */
        final Queue<MessageStatus> outcomes = new ConcurrentLinkedQueue<>();
        private volatile boolean abandoned;

        private Outgoing(String address, byte[] body, Map<String, Object> properties, Pool.Worker worker) {
            this.address = address;
            this.body = body;
            this.properties = properties;
            this.worker = worker;
        }

        /** It is not sent again. */
        void abandon() {
            abandoned = true;
        }
    }

    private Outgoing send(String address, byte[] body, String deduplicationId, Pool.Worker worker) {
        // All that a node's bridge forwards; it adds who the sender is itself.
        Map<String, Object> properties = new HashMap<>();
        properties.put("platform-topic", "platform.session");
        properties.put("platform-version", Transactions.PLATFORM_VERSION);
        properties.put("corda-vendor", "Corda Community Edition");
        properties.put("release-version", "4.10");
        properties.put("_AMQ_DUPL_ID", deduplicationId);
        properties.put("sender-uuid", senderUuid);
        properties.put("send-seq-no", sendSequence.getAndIncrement());
        Outgoing message = new Outgoing(address, body, properties, worker);
        dispatch(message);
        return message;
    }

    private void dispatch(Outgoing message) {
        if (closed || message.abandoned) {
            return;
        }
        // In rotation, as consumers of one queue get its messages.
        int first = turn.getAndIncrement();
        for (int i = 0; i < bridges.size(); i++) {
            Bridge bridge = bridges.get(Math.floorMod(first + i, bridges.size()));
            if ((message.worker == null || message.worker.equals(bridge.worker)) && bridge.write(message)) {
                return;
            }
        }
        waiting.add(message);
    }

    private void again(Outgoing message) {
        threads.schedule(() -> dispatch(message), AGAIN_MILLISECONDS, TimeUnit.MILLISECONDS);
    }

    /** To one worker. */
    private final class Bridge {
        private final Pool.Worker worker;
        private final AMQPClient client;
        private final Set<Outgoing> underWay = ConcurrentHashMap.newKeySet();
        private volatile boolean connected;

        private Bridge(Pool.Worker worker) {
            this.worker = worker;
            // As a node names them: the worker's own name first.
            Set<CordaX500Name> names = new java.util.LinkedHashSet<>(
                    List.of(worker.party().getName(), pool.notary().getName()));
            client = new AMQPClient(List.of(worker.address()), names,
                    configuration(identity.tls(), pool.authority.trust()), threads);
            client.getOnConnection().subscribe(this::changed);
        }

        private void changed(ConnectionChange change) {
            connected = change.getConnected();
            if (connected) {
                for (Outgoing message = waiting.poll(); message != null; message = waiting.poll()) {
                    again(message);
                }
            } else {
                // Most were told to be rejected; a few may have been written to nobody.
                List.copyOf(underWay).forEach(message -> finished(message, MessageStatus.Rejected));
            }
        }

        /** False if it is not connected. */
        private boolean write(Outgoing message) {
            if (!connected) {
                return false;
            }
            underWay.add(message);
            try {
                SendableMessage sendable = client.createMessage(message.body, message.address,
                        worker.party().getName().toString(), message.properties);
                sendable.getOnComplete().toCompletableFuture()
                        .thenAccept(status -> finished(message, status));
                client.write(sendable);
                return true;
            } catch (IllegalStateException gone) {
                return !underWay.remove(message);
            }
        }

        private void finished(Outgoing message, MessageStatus status) {
            if (!underWay.remove(message)) {
                return;
            }
            message.outcomes.add(status);
            if (status != MessageStatus.Acknowledged) {
                rejected.incrementAndGet();
                again(message);
            }
        }
    }

    // --- the broker -------------------------------------------------------------------------------------------------

    /** From now on it takes answers, or none: then it does not say what becomes of them. */
    void takeAnswers(boolean taken) {
        taking = taken;
    }

    private void take(ReceivedMessage message) {
        if (!taking) {
            return;
        }
        try {
            read(message);
        } catch (Exception | AssertionError e) {
            complaints.add(e.toString());
        }
        message.complete(true);
    }

    private void read(ReceivedMessage message) throws Exception {
        Map<String, ?> properties = message.getApplicationProperties();
        // A node's broker has no other address, and drops or refuses what does not meet these.
        requireEqual(inbox, message.getTopic(), "address of a reply");
        requireEqual("platform.session", properties.get("platform-topic"), "platform-topic of a reply");
        require(properties.get("platform-version") instanceof Integer, "a reply without an int platform-version");
        require(properties.get("_AMQ_DUPL_ID") instanceof String, "a reply without a deduplication id");
        String id = (String) properties.get("_AMQ_DUPL_ID");
        require(id.length() <= DEDUPLICATION_ID_LENGTH_MAX, "a deduplication id of %d characters", id.length());
        Party sender = pool.network.nodeNamed(CordaX500Name.parse(message.getSourceLegalName()));
        require(pool.network.isWorker(sender), "a reply from %s, which is no worker", sender);
        if (!seen.add(id)) {
            return;
        }
        SessionMessage decoded = Corda.deserialize(SessionMessage.class, message.getPayload());
        require(decoded instanceof ExistingSessionMessage, "a reply that starts a session");
        ExistingSessionMessage existing = (ExistingSessionMessage) decoded;
        Conversation conversation = conversations.get(existing.getRecipientSessionId().getToLong());
        require(conversation != null, "a reply to a session that was never started");
        // One link brings the messages of one answer; two workers may answer the same request.
        synchronized (conversation) {
            conversation.receive(sender, existing.getPayload());
        }
    }

    /** Fails if anything arrived that a node would not have taken. */
    void requireNoComplaints() {
        require(complaints.isEmpty(), "%s: %d complaints, the first: %s", identity.name(), complaints.size(),
                complaints.peek());
        conversations.values().forEach(
                conversation -> require(conversation.violation() == null, "%s", conversation.violation()));
    }

    /** Forgets sessions that are over: for long runs. */
    void forget(Conversation conversation) {
        conversations.remove(conversation.sessionId);
    }

    /** How often a message was not accepted, and was sent again. */
    int sentAgain() {
        return rejected.get();
    }

    NetworkHostAndPort address() {
        return new NetworkHostAndPort("127.0.0.1", broker.getPort());
    }

    /** The ids that have arrived grow without bound: a node keeps them for two weeks, a long test need not. */
    void forgetIds() {
        seen.clear();
    }

    @Override
    public void close() {
        closed = true;
        bridges.forEach(bridge -> bridge.client.stop());
        broker.stop();
    }
}
