package peers;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import io.netty.channel.EventLoopGroup;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;
import judge.Conversation;
import judge.Transactions;
import judge.Verdicts;
import net.corda.core.contracts.StateRef;
import net.corda.core.crypto.SecureHash;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.flows.NotarisationResponse;
import net.corda.core.flows.NotaryError;
import net.corda.core.flows.StateConsumptionDetails;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.internal.notary.NotaryUtilsKt;
import net.corda.core.transactions.WireTransaction;

/** Many peers at once, and what each of their answers must be. */
final class Crowd implements AutoCloseable {
    /** One transaction of so many has a rival of another peer for its only input. */
    private static final int CONTESTED = 10;

    /** Two workers, unoptimised and on two cores that they share with all of their peers, take half a minute. */
    private static final Duration PATIENCE = Duration.ofSeconds(120);

    private static final Duration CONNECTED = Duration.ofSeconds(60);

    private final Pool pool;
    private final Transactions transactions;
    final List<Peer> peers = new ArrayList<>();

    /** Peers whose brokers listen, and who are in the network map; it must be before the workers start. */
    Crowd(Pool pool, int count, EventLoopGroup threads) throws Exception {
        this.pool = pool;
        transactions = new Transactions(pool.network);
        int port = nodes.Ports.free(count);
        for (int i = 0; i < count; i++) {
            CordaX500Name name = new CordaX500Name("Peer " + (i + 1), "Paris", "FR");
            Authority.Identity identity = pool.authority.issue(name);
            pool.publish(identity, port + i);
            peers.add(new Peer(pool, identity, port + i, threads));
        }
    }

    /** Opens all bridges to all workers. */
    void connect() throws InterruptedException {
        peers.forEach(Peer::connect);
        Instant deadline = Instant.now().plus(CONNECTED);
        while (!peers.stream().allMatch(Peer::isConnected)) {
            require(Instant.now().isBefore(deadline), "not all peers are connected within %s", CONNECTED);
            TimeUnit.MILLISECONDS.sleep(50);
        }
    }

    /** Each peer is answered once by each worker: then all bridges in either direction are there. */
    void greet() throws Exception {
        connect();
        List<Asked> asked = new ArrayList<>();
        for (Peer peer : peers) {
            for (Pool.Worker worker : pool.workers) {
                Prepared prepared = prepare(peer, Transactions.randomState());
                asked.add(new Asked(prepared, peer.start(prepared.session(), worker)));
            }
        }
        for (Asked one : asked) {
            Conversation.Answer answer = one.answer(Instant.now().plus(CONNECTED));
            require(answer instanceof Conversation.Notarised, "refused: %s", answer);
            requireSigned(one.prepared().id(), ((Conversation.Notarised) answer).response());
        }
    }

    /** A transaction that is built and signed, and who asks for it. */
    record Prepared(Peer peer, WireTransaction transaction, NotarisationPayload payload, Peer.Prepared session) {
        SecureHash id() {
            return transaction.getId();
        }
    }

    /** What a peer asked for and is told. */
    record Asked(Prepared prepared, Conversation conversation) {
        Conversation.Answer answer(Instant deadline) throws Exception {
            long left = Math.max(1, Duration.between(Instant.now(), deadline).toMillis());
            try {
                return conversation.answered().get(left, TimeUnit.MILLISECONDS);
            } catch (TimeoutException e) {
                throw new AssertionError("no answer to " + prepared.peer().identity.name());
            } catch (java.util.concurrent.ExecutionException e) {
                throw new AssertionError(e.getCause().getMessage());
            }
        }
    }

    Prepared prepare(Peer peer, StateRef... inputs) throws Exception {
        WireTransaction transaction = transactions.spending(inputs).build();
        NotarisationPayload payload = peer.payload(transaction);
        return new Prepared(peer, transaction, payload, peer.prepare(payload));
    }

    /** For the first time. */
    Asked ask(Prepared prepared) {
        return new Asked(prepared, prepared.peer().start(prepared.session(), null));
    }

    /** In a session of its own. */
    private Asked askAgain(Prepared prepared) {
        return new Asked(prepared, prepared.peer().start(prepared.payload(), null));
    }

    /** `each` transactions of every peer, all at once. */
    void judge(Verdicts verdicts, int each) {
        int count = peers.size();
        List<Prepared> prepared = new ArrayList<>();
        List<Asked> asked = new ArrayList<>();
        List<Conversation.Answer> answers = new ArrayList<>();
        verdicts.judge(count + " peers, of as many identities, have bridges to each of " + pool.workers.size()
                + " workers", () -> {
            connect();
            return "";
        });
        String at = count + " × " + each + " transactions at once: each gets an answer";
        verdicts.judge(at, () -> {
            prepared.addAll(prepare(each));
            Instant start = Instant.now();
            prepared.forEach(one -> asked.add(ask(one)));
            Duration sent = Duration.between(start, Instant.now());
            Instant deadline = start.plus(PATIENCE);
            for (Asked one : asked) {
                answers.add(one.answer(deadline));
            }
            Duration took = Duration.between(start, Instant.now());
            return String.format("%d in %.1f s (%.1f s of it to hand them to the bridges), %.0f a second", asked.size(),
                    took.toMillis() / 1e3, sent.toMillis() / 1e3, asked.size() * 1e3 / took.toMillis());
        });
        if (answers.size() < count * each) {
            return;
        }
        verdicts.judge("each answer is what a node accepts: the notary's signature, verified, or a conflict", () -> {
            Instant start = Instant.now();
            int together = 0;
            int notarised = 0;
            for (int i = 0; i < answers.size(); i++) {
                if (answers.get(i) instanceof Conversation.Notarised answer) {
                    notarised++;
                    together += requireSigned(asked.get(i).prepared().id(), answer.response()) ? 1 : 0;
                }
            }
            return String.format("%d signatures, %d of them over several transactions, verified in %.1f s", notarised,
                    together, Duration.between(start, Instant.now()).toMillis() / 1e3);
        });
        verdicts.judge("of each two rivals exactly one is notarised, and the other is told of it", () -> {
            int pairs = 0;
            for (int first = 0; first < prepared.size(); first++) {
                int second = rival(first, each);
                if (second < 0) {
                    require(answers.get(first) instanceof Conversation.Notarised, "refused without a rival: %s",
                            answers.get(first));
                } else if (first < second) {
                    boolean won = answers.get(first) instanceof Conversation.Notarised;
                    requireConflict(prepared.get(won ? second : first), answers.get(won ? second : first),
                            prepared.get(won ? first : second));
                    require(answers.get(won ? first : second) instanceof Conversation.Notarised, "none of two is");
                    pairs++;
                }
            }
            return pairs + " pairs";
        });
        verdicts.judge("asked again, by each peer for all it was answered, the answers are the same", () -> {
            int again = 0;
            for (int i = 0; i < asked.size(); i += each / 10) {
                Asked repeated = askAgain(prepared.get(i));
                Conversation.Answer answer = repeated.answer(Instant.now().plus(Conversation.PATIENCE));
                requireEqual(answers.get(i).getClass(), answer.getClass(), "answer");
                if (answer instanceof Conversation.Notarised notarised) {
                    requireSigned(prepared.get(i).id(), notarised.response());
                }
                again++;
            }
            return again + " of them";
        });
        verdicts.judge("nothing came that a node would not have taken", () -> {
            peers.forEach(Peer::requireNoComplaints);
            return peers.stream().mapToInt(Peer::sentAgain).sum() + " messages had to be sent again";
        });
    }

    private List<Prepared> prepare(int each) throws Exception {
        int count = peers.size();
        List<StateRef> inputs = new ArrayList<>();
        for (int i = 0; i < count * each; i++) {
            int rival = rival(i, each);
            inputs.add(rival >= 0 && rival < i ? inputs.get(rival) : Transactions.randomState());
        }
        // Signing takes both cores a while.
        List<CompletableFuture<Prepared>> prepared = IntStream.range(0, count * each)
                .mapToObj(i -> CompletableFuture.supplyAsync(() -> {
                    try {
                        return prepare(peers.get(i / each), inputs.get(i));
                    } catch (Exception e) {
                        throw new IllegalStateException(e);
                    }
                })).toList();
        return prepared.stream().map(CompletableFuture::join).toList();
    }

    /** Which transaction has the same input as this one, of the next or the previous peer; -1 if none has. */
    private int rival(int transaction, int each) {
        int peer = transaction / each;
        int other = peer % 2 == 0 ? peer + 1 : peer - 1;
        return transaction % each % CONTESTED != 0 || other >= peers.size() ? -1 : other * each + transaction % each;
    }

    /** Verified as a client's flow does it. Returns whether the signature is over several transactions. */
    boolean requireSigned(SecureHash id, NotarisationResponse response) throws Exception {
        require(!response.getSignatures().isEmpty(), "no signature");
        NotaryUtilsKt.validateSignatures(response, id, pool.notary());
        for (var signature : response.getSignatures()) {
            require(signature.verify(id), "the signature is not over %s", id);
        }
        return response.getSignatures().get(0).getPartialMerkleTree() != null;
    }

    private static void requireConflict(Prepared asked, Conversation.Answer answer, Prepared winner) {
        require(answer instanceof Conversation.Refused, "both of two rivals are notarised: %s", answer);
        NotaryError error = ((Conversation.Refused) answer).exception().getError();
        require(error instanceof NotaryError.Conflict, "refused otherwise: %s", error);
        NotaryError.Conflict conflict = (NotaryError.Conflict) error;
        requireEqual(asked.id(), conflict.getTxId(), "transaction of the conflict");
        requireEqual(Map.of(asked.transaction().getInputs().get(0), new StateConsumptionDetails(winner.id().reHash(),
                StateConsumptionDetails.ConsumedStateType.INPUT_STATE)), conflict.getConsumedStates(),
                "consumed states");
    }

    @Override
    public void close() {
        peers.parallelStream().forEach(Peer::close);
    }
}
