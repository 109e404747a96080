package peers;

import static judge.Verdicts.require;

import io.netty.channel.EventLoopGroup;
import java.io.IOException;
import java.security.KeyPair;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import judge.Conversation;
import judge.Transactions;
import judge.Verdicts;
import net.corda.core.contracts.StateRef;
import net.corda.core.crypto.Crypto;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.flows.NotaryError;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.transactions.WireTransaction;
import net.corda.nodeapi.internal.config.CertificateStore;
import net.corda.nodeapi.internal.crypto.CertificateType;
import net.corda.nodeapi.internal.protonwrapper.messages.MessageStatus;
import net.corda.nodeapi.internal.protonwrapper.netty.AMQPClient;
import net.corda.nodeapi.internal.protonwrapper.netty.ConnectionChange;
import org.apache.qpid.proton.amqp.transport.ErrorCondition;
import org.apache.qpid.proton.amqp.transport.SenderSettleMode;

/**
 * Peers that are broken on purpose, while another one is served by the same worker. Each is refused, and the worker's
 * log says who it was and why.
 */
final class Hostile implements AutoCloseable {
    private static final CordaX500Name MALLORY = new CordaX500Name("Mallory", "Paris", "FR");

    private static final CordaX500Name BYSTANDER = new CordaX500Name("Bystander", "Paris", "FR");

    private static final CordaX500Name STRANGER = new CordaX500Name("Stranger", "Paris", "FR");

    private static final Duration PATIENCE = Duration.ofSeconds(30);

    /** What the bystander may wait for an answer, beside whatever the others do. It usually takes some 20 ms. */
    private static final Duration SERVED = Duration.ofSeconds(3);

    /** Fewer than one address may have in their handshake at once. */
    private static final int SLOW = 24;

    /** A node has one or two; eight may it have. */
    private static final int CONNECTIONS = 24;

    /** Beyond Corda's `maxMessageSize` of 10 MiB and all that is around a body. */
    private static final int OVERSIZE_BYTES = 11 << 20;

    private final Pool pool;
    private final nodes.Workers workers;
    private final Pool.Worker worker;
    private final EventLoopGroup threads;
    private final Transactions transactions;
    private final Peer bystander;
    private final Peer mallory;
    private final Thread asking;
    private final List<Duration> served = new ArrayList<>();
    private volatile String failure;
    private volatile boolean closing;

    Hostile(Pool pool, nodes.Workers workers, EventLoopGroup threads) throws Exception {
        this.pool = pool;
        this.workers = workers;
        this.threads = threads;
        worker = pool.workers.get(0);
        transactions = new Transactions(pool.network);
        bystander = published(BYSTANDER);
        mallory = published(MALLORY);
        asking = new Thread(this::keepAsking, "bystander");
    }

    private Peer published(CordaX500Name name) throws Exception {
        Authority.Identity identity = pool.authority.issue(name);
        int port = nodes.Ports.free(1);
        pool.publish(identity, port);
        return new Peer(pool, identity, port, threads);
    }

    // --- the bystander ----------------------------------------------------------------------------------------------

    private void keepAsking() {
        while (!closing) {
            try {
                Instant start = Instant.now();
                WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
                Conversation conversation = bystander.start(bystander.payload(transaction), worker);
                Conversation.Answer answer = conversation.answered().get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
                require(answer instanceof Conversation.Notarised, "refused: %s", answer);
                net.corda.core.internal.notary.NotaryUtilsKt.validateSignatures(
                        ((Conversation.Notarised) answer).response(), transaction.getId(), pool.notary());
                synchronized (served) {
                    served.add(Duration.between(start, Instant.now()));
                    served.notifyAll();
                }
                TimeUnit.MILLISECONDS.sleep(100);
            } catch (Exception | AssertionError e) {
                if (!closing) {
                    failure = e.toString();
                }
                synchronized (served) {
                    served.notifyAll();
                }
                return;
            }
        }
    }

    /** Waits until the bystander was answered so many times. */
    private void awaitServed(int count) throws InterruptedException {
        Instant deadline = Instant.now().plus(PATIENCE);
        synchronized (served) {
            while (served.size() < count && failure == null) {
                require(Instant.now().isBefore(deadline), "the bystander is not served");
                served.wait(100);
            }
        }
        require(failure == null, "the bystander: %s", failure);
    }

    /** Judges a claim, and that the bystander is served throughout. */
    private void judge(Verdicts verdicts, String claim, Verdicts.Check check) {
        verdicts.judge(claim, () -> {
            int before;
            synchronized (served) {
                before = served.size();
            }
            String remark = check.run();
            // One that was under way at the beginning, and one that began after it, at least.
            awaitServed(before + 2);
            Duration longest;
            int during;
            synchronized (served) {
                List<Duration> since = served.subList(before, served.size());
                during = since.size();
                longest = since.stream().max(Duration::compareTo).orElseThrow();
            }
            require(longest.compareTo(SERVED) < 0, "the bystander waited for %s", longest);
            return String.format("%s; beside it %d answers, within %d ms", remark, during, longest.toMillis());
        });
    }

    // --- the worker's log -------------------------------------------------------------------------------------------

    private int logged() {
        return workers.output(worker.number()).length();
    }

    /** Waits for a line since the mark that names peer and reason. Returns what it says of the reason. */
    private String awaitRefusal(int mark, String peer, String reason) throws InterruptedException {
        Pattern line = Pattern.compile("refused peer=" + peer + " reason=\"" + reason + "\" detail=\"([^\"]*)\"");
        return awaitLine(mark, line);
    }

    private String awaitLine(int mark, Pattern line) throws InterruptedException {
        Instant deadline = Instant.now().plus(PATIENCE);
        while (true) {
            Matcher found = line.matcher(workers.output(worker.number()).substring(mark));
            if (found.find()) {
                return found.groupCount() == 0 ? found.group() : found.group(1);
            }
            require(Instant.now().isBefore(deadline), "the log does not say «%s»", line);
            TimeUnit.MILLISECONDS.sleep(50);
        }
    }

    private static final String STRANGERS_ADDRESS = "127\\.0\\.0\\.1:[0-9]+";

    /** As the log names a peer who has shown a certificate. */
    private static String named(CordaX500Name name) {
        return STRANGERS_ADDRESS + " \\(O=" + name.getOrganisation() + ", L=Paris, C=FR\\)";
    }

    // --- certificates -----------------------------------------------------------------------------------------------

    void judge(Verdicts verdicts) {
        verdicts.judge("two peers connect, and one of them is served", () -> {
            bystander.connect();
            mallory.connect();
            Instant deadline = Instant.now().plus(PATIENCE);
            while (!bystander.isConnected() || !mallory.isConnected()) {
                require(Instant.now().isBefore(deadline), "not connected within %s", PATIENCE);
                TimeUnit.MILLISECONDS.sleep(50);
            }
            asking.start();
            awaitServed(2);
            return "";
        });
        judgeCertificates(verdicts);
        judgeRequests(verdicts);
        judgeFrames(verdicts);
        judgeSlow(verdicts);
        judgeGreedy(verdicts);
        verdicts.judge("nothing came that a node would not have taken", () -> {
            bystander.requireNoComplaints();
            mallory.requireNoComplaints();
            return "";
        });
    }

    private void judgeCertificates(Verdicts verdicts) {
        Instant now = Instant.now();
        Duration day = Duration.ofDays(1);
        judge(verdicts, "a certificate of another network's root is refused", () ->
                refusedInHandshake(Authority.foreign().issue(MALLORY).tls()));
        judge(verdicts, "an expired certificate is refused", () -> refusedInHandshake(pool.authority.issueTls(MALLORY,
                CertificateType.TLS, MALLORY, now.minus(day.multipliedBy(2)), now.minus(day)).tls()));
        judge(verdicts, "a certificate that is not valid yet is refused", () -> refusedInHandshake(
                pool.authority.issueTls(MALLORY, CertificateType.TLS, MALLORY, now.plus(day),
                        now.plus(day.multipliedBy(2))).tls()));
        judge(verdicts, "a certificate that a node made for somebody else's name is refused", () -> refusedInHandshake(
                pool.authority.issueTls(MALLORY, CertificateType.TLS, BYSTANDER, now.minus(day), now.plus(day)).tls()));
        judge(verdicts, "a certificate that is not for TLS is refused", () -> refusedInHandshake(
                pool.authority.issueTls(MALLORY, CertificateType.LEGAL_IDENTITY, MALLORY, now.minus(day),
                        now.plus(day)).tls()));
        judge(verdicts, "no certificate is refused", () -> refusedInHandshake(Authority.nothing()));
        judge(verdicts, "cipher suites that Corda does not use are refused", () -> {
            int mark = logged();
            try (Raw raw = Raw.tls(worker, mallory.identity.tls(), pool.authority.trust(),
                    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA")) {
                throw new AssertionError("agreed on, at port " + raw.port());
            } catch (javax.net.ssl.SSLException refused) {
                return awaitRefusal(mark, STRANGERS_ADDRESS, "tls") + ", as Java sees it " + refused.getMessage();
            }
        });
    }

    /** What Corda's own client makes of it: a handshake that failed for good, and no connection. */
    private String refusedInHandshake(CertificateStore keys) throws Exception {
        int mark = logged();
        BlockingQueue<ConnectionChange> changes = new LinkedBlockingQueue<>();
        try (AMQPClient client = client(keys)) {
            client.getOnConnection().subscribe(changes::add);
            client.start();
            ConnectionChange change = changes.poll(PATIENCE.toSeconds(), TimeUnit.SECONDS);
            require(change != null, "neither connected nor refused within %s", PATIENCE);
            require(!change.getConnected(), "connected");
            String refusal = awaitRefusal(mark, STRANGERS_ADDRESS, "tls");
            return refusal + ", as Corda's client sees it " + change.getConnectionResult();
        }
    }

    private AMQPClient client(CertificateStore keys) {
        return new AMQPClient(List.of(worker.address()), java.util.Set.of(worker.party().getName()),
                Peer.configuration(keys, pool.authority.trust()), threads);
    }

    // --- requests ---------------------------------------------------------------------------------------------------

    private void judgeRequests(Verdicts verdicts) {
        judge(verdicts, "a request that is signed with another key is refused", () ->
                refusedSignature(Crypto.generateKeyPair(Crypto.EDDSA_ED25519_SHA512)));
        judge(verdicts, "a request whose signature is that of another request is refused", () -> {
            int mark = logged();
            WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
            NotarisationPayload payload = Transactions.payload(Transactions.filtered(transaction),
                    List.of(Transactions.randomState()), transaction.getId(), mallory.identity.keys());
            return refused(mark, payload, NotaryError.RequestSignatureInvalid.class);
        });
        judge(verdicts, "a request that another party has signed is refused", () ->
                refusedSignature(bystander.identity.keys()));
        judge(verdicts, "a transaction that hides an input is refused", () -> {
            int mark = logged();
            StateRef shown = Transactions.randomState();
            StateRef hidden = Transactions.randomState();
            WireTransaction transaction = transactions.spending(shown, hidden).build();
            NotarisationPayload payload = Transactions.payload(
                    Transactions.filtered(transaction, component -> !hidden.equals(component)), List.of(shown),
                    transaction.getId(), mallory.identity.keys());
            return refused(mark, payload, NotaryError.TransactionInvalid.class);
        });
        judge(verdicts, "a transaction that hides its notary is refused", () -> {
            int mark = logged();
            WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
            NotarisationPayload payload = Transactions.payload(
                    Transactions.filtered(transaction, component -> !pool.notary().equals(component)),
                    transaction.getInputs(), transaction.getId(), mallory.identity.keys());
            return refused(mark, payload, NotaryError.TransactionInvalid.class);
        });
        judge(verdicts, "bytes that are no session message are accepted, as a node does, and dropped", () -> {
            int mark = logged();
            byte[] nonsense = "this is no session message".getBytes(java.nio.charset.StandardCharsets.US_ASCII);
            Peer.Outgoing message = mallory.sendRaw(nonsense, worker);
            require(outcome(message) == MessageStatus.Acknowledged, "not accepted");
            return awaitRefusal(mark, named(MALLORY), "unreadable-request");
        });
        judge(verdicts, "a message of Corda's that starts no session is accepted, and dropped", () -> {
            int mark = logged();
            Peer.Outgoing message = mallory.sendRaw(judge.Corda.serialize(MALLORY).getBytes(), worker);
            require(outcome(message) == MessageStatus.Acknowledged, "not accepted");
            return awaitRefusal(mark, named(MALLORY), "unreadable-request");
        });
        judge(verdicts, "a message beyond the size of the network's parameters is refused", () -> {
            int mark = logged();
            Peer.Outgoing message = mallory.sendRaw(new byte[OVERSIZE_BYTES], worker);
            MessageStatus outcome = outcome(message);
            message.abandon();
            require(outcome == MessageStatus.Rejected, "accepted");
            return awaitRefusal(mark, named(MALLORY), "message-too-large");
        });
    }

    private static MessageStatus outcome(Peer.Outgoing message) throws InterruptedException {
        Instant deadline = Instant.now().plus(PATIENCE);
        while (message.outcomes.isEmpty()) {
            require(Instant.now().isBefore(deadline), "no outcome within %s", PATIENCE);
            TimeUnit.MILLISECONDS.sleep(20);
        }
        return message.outcomes.peek();
    }

    private String refusedSignature(KeyPair keys) throws Exception {
        int mark = logged();
        WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
        NotarisationPayload payload = Transactions.payload(
                Transactions.filtered(transaction), transaction.getInputs(), transaction.getId(), keys);
        return refused(mark, payload, NotaryError.RequestSignatureInvalid.class);
    }

    /** Answered with this error, and logged with the party's name. */
    private String refused(int mark, NotarisationPayload payload, Class<? extends NotaryError> kind) throws Exception {
        Conversation conversation = mallory.start(payload, worker);
        Conversation.Answer answer = conversation.answered().get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        require(answer instanceof Conversation.Refused, "not refused: %s", answer);
        NotaryError error = ((Conversation.Refused) answer).exception().getError();
        require(kind.isInstance(error), "refused otherwise: %s", error);
        String line = awaitLine(mark, Pattern.compile("[^\\n]*refused[^\\n]*caller=O=Mallory, L=Paris, C=FR[^\\n]*"));
        Matcher reason = Pattern.compile("reason=\"?([^\"\\n]*)").matcher(line);
        require(reason.find(), "no reason: %s", line);
        return reason.group(1);
    }

    // --- frames -----------------------------------------------------------------------------------------------------

    /** What is said on a connection that is logged in, open, or in a session. */
    private interface Saying {
        void say(Raw raw) throws Exception;
    }

    private void judgeFrames(Verdicts verdicts) {
        String service = judge.Network.inbox(pool.notary());
        judgeFrame(verdicts, "AMQP without SASL is refused", "not-authenticated", raw -> {
            raw.write(Raw.AMQP_HEADER);
            raw.awaitClosed();
        });
        judgeFrame(verdicts, "a protocol that is not AMQP is refused", "malformed", raw -> {
            raw.write("GET / HTTP/1.1\r\n\r\n".getBytes(java.nio.charset.StandardCharsets.US_ASCII));
            raw.awaitClosed();
        });
        judgeFrame(verdicts, "a session before the connection is open is refused", "not-allowed", raw -> {
            raw.login();
            raw.write(Raw.AMQP_HEADER);
            raw.write(raw.frame(Raw.beginFrame()));
            raw.awaitClosed();
        });
        judgeFrame(verdicts, "a connection that is opened twice is refused", "not-allowed", raw -> {
            raw.open(true).write(raw.frame(Raw.openFrame()));
            told(raw);
        });
        judgeFrame(verdicts, "a link without a session is refused", "not-allowed", raw -> {
            raw.open(false).write(raw.frame(Raw.attachFrame(service, SenderSettleMode.UNSETTLED)));
            told(raw);
        });
        judgeFrame(verdicts, "a message without a link is refused", "not-allowed", raw -> {
            raw.open(true).write(raw.frame(Raw.transferFrame(0), new byte[64]));
            told(raw);
        });
        judgeFrame(verdicts, "a link to an address that is not the worker's is refused", "unknown-target", raw -> {
            String other = judge.Network.inbox(bystander.party());
            raw.open(true).write(raw.frame(Raw.attachFrame(other, SenderSettleMode.UNSETTLED)));
            // A node's bridge takes this text for «delivered», and drops what waits.
            require(!told(raw).getDescription().contains("AMQ229032"), "told in words that lose messages");
        });
        judgeFrame(verdicts, "a link for messages that nobody keeps is refused", "pre-settled", raw -> {
            raw.open(true).write(raw.frame(Raw.attachFrame(service, SenderSettleMode.SETTLED)));
            told(raw);
        });
        judgeFrame(verdicts, "a frame beyond the size that was agreed is refused", "frame-too-large", raw -> {
            raw.open(true).write((byte) 0, (byte) 0x20, (byte) 0, (byte) 0, (byte) 2, (byte) 0, (byte) 0, (byte) 0);
            told(raw);
        });
        judgeFrame(verdicts, "a frame that is shorter than its header is refused", "malformed", raw -> {
            raw.open(true).write((byte) 0, (byte) 0, (byte) 0, (byte) 4, (byte) 2, (byte) 0, (byte) 0, (byte) 0);
            told(raw);
        });
        judge(verdicts, "a message without credit is refused", () -> {
            int mark = logged();
            // A node that is not in the network map gets none.
            CertificateStore keys = pool.authority.issue(STRANGER).tls();
            try (Raw raw = Raw.tls(worker, keys, pool.authority.trust())) {
                raw.open(true).write(raw.frame(Raw.attachFrame(service, SenderSettleMode.UNSETTLED)));
                raw.write(raw.frame(Raw.transferFrame(0), new byte[64]));
                told(raw);
            }
            return "credit-exceeded: " + awaitRefusal(mark, named(STRANGER), "credit-exceeded");
        });
        judgeFrame(verdicts, "a frame of nonsense is refused", "malformed", raw -> {
            raw.open(true).write((byte) 0, (byte) 0, (byte) 0, (byte) 12, (byte) 2, (byte) 0, (byte) 0, (byte) 0,
                    (byte) 0xde, (byte) 0xad, (byte) 0xbe, (byte) 0xef);
            told(raw);
        });
    }

    private static ErrorCondition told(Raw raw) throws IOException {
        return raw.awaitError();
    }

    private void judgeFrame(Verdicts verdicts, String claim, String reason, Saying saying) {
        judge(verdicts, claim, () -> {
            int mark = logged();
            try (Raw raw = Raw.tls(worker, mallory.identity.tls(), pool.authority.trust())) {
                saying.say(raw);
            }
            String detail = awaitRefusal(mark, named(MALLORY), reason);
            return detail.isEmpty() ? reason : reason + ": " + detail;
        });
    }

    // --- time and numbers -------------------------------------------------------------------------------------------

    private void judgeSlow(Verdicts verdicts) {
        judge(verdicts, SLOW + " connections that begin TLS and never end it are closed", () -> {
            int mark = logged();
            List<Raw> slow = new ArrayList<>();
            // The beginning of a ClientHello.
            byte[] hello = {0x16, 3, 1, 2, 0, 1, 0, 1, (byte) 0xfc, 3, 3};
            for (int i = 0; i < SLOW; i++) {
                slow.add(Raw.tcp(worker));
            }
            String took = drip(slow, hello);
            awaitRefusal(mark, STRANGERS_ADDRESS, "handshake-timeout");
            return took;
        });
        judge(verdicts, "connections that begin SASL and never end it are closed", () -> {
            int mark = logged();
            List<Raw> slow = new ArrayList<>();
            for (int i = 0; i < CONNECTIONS / 2; i++) {
                slow.add(Raw.tls(worker, mallory.identity.tls(), pool.authority.trust()));
            }
            String took = drip(slow, Raw.SASL_HEADER);
            awaitRefusal(mark, named(MALLORY), "handshake-timeout");
            return took;
        });
    }

    /** Sends one byte a second until all are closed, and all of these but the last at most. */
    private static String drip(List<Raw> slow, byte[] bytes) throws Exception {
        Instant start = Instant.now();
        Thread dripping = new Thread(() -> {
            for (int i = 0; i < bytes.length - 1; i++) {
                for (Raw raw : slow) {
                    try {
                        raw.write(bytes[i]);
                    } catch (IOException closed) {
                        // As it should be.
                    }
                }
                try {
                    TimeUnit.SECONDS.sleep(1);
                } catch (InterruptedException e) {
                    return;
                }
            }
        });
        dripping.start();
        try {
            for (Raw raw : slow) {
                raw.awaitClosed();
            }
        } finally {
            dripping.interrupt();
            slow.forEach(Raw::close);
        }
        return "after " + Duration.between(start, Instant.now()).toSeconds() + " s";
    }

    private void judgeGreedy(Verdicts verdicts) {
        judge(verdicts, "more connections than a node may have are refused", () -> {
            int mark = logged();
            List<Raw> many = new ArrayList<>();
            int open = 0;
            try {
                for (int i = 0; i < CONNECTIONS; i++) {
                    Raw raw = Raw.tls(worker, mallory.identity.tls(), pool.authority.trust());
                    many.add(raw);
                    try {
                        raw.open(true);
                        open++;
                    } catch (IOException | AssertionError refused) {
                        // Beyond the limit.
                    }
                }
                awaitRefusal(mark, named(MALLORY), "too-many-connections-of-caller");
                return open + " of " + CONNECTIONS + " are open";
            } finally {
                many.forEach(Raw::close);
            }
        });
        judge(verdicts, "a node that is not in the network map is not served until it is", () -> {
            int mark = logged();
            int port = nodes.Ports.free(1);
            try (Peer stranger = new Peer(pool, pool.authority.issue(STRANGER), port, threads)) {
                stranger.connect();
                WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
                Conversation conversation = stranger.start(stranger.payload(transaction), worker);
                awaitLine(mark, Pattern.compile(
                        "nothing is taken from it: it is not in the network map[^\\n]*O=Stranger, L=Paris, C=FR"));
                int before;
                synchronized (served) {
                    before = served.size();
                }
                awaitServed(before + 10);
                require(!conversation.answered().isDone(), "answered");
                Instant published = Instant.now();
                pool.publish(stranger.identity, port);
                conversation.answered().get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
                return "answered " + Duration.between(published, Instant.now()).toMillis() + " ms after it was";
            }
        });
        judge(verdicts, "a node that does not take its answers waits for them alone, and gets them when it does", () -> {
            int mark = logged();
            mallory.takeAnswers(false);
            List<Conversation> waiting = new ArrayList<>();
            for (int i = 0; i < CONNECTIONS; i++) {
                WireTransaction transaction = transactions.spending(Transactions.randomState()).build();
                waiting.add(mallory.start(mallory.payload(transaction), worker));
            }
            String said = awaitLine(mark, Pattern.compile(
                    "answers do not reach it[^\\n]*peer=O=Mallory, L=Paris, C=FR why=\"([^\"\\n]*)"));
            require(waiting.stream().noneMatch(one -> one.answered().isDone()), "answered");
            mallory.takeAnswers(true);
            for (Conversation one : waiting) {
                one.answered().get(2 * PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
            }
            return waiting.size() + " requests, " + said;
        });
    }

    @Override
    public void close() {
        closing = true;
        try {
            asking.join(PATIENCE.toMillis());
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
        bystander.close();
        mallory.close();
    }
}
