package judge;

import static judge.Transactions.filtered;
import static judge.Transactions.payload;
import static judge.Transactions.randomState;
import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import java.security.KeyPair;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.function.UnaryOperator;
import judge.Conversation.Answer;
import judge.Conversation.Notarised;
import judge.Conversation.Refused;
import judge.Conversation.Rejected;
import judge.Conversation.Unrevealed;
import net.corda.core.contracts.ComponentGroupEnum;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.crypto.Crypto;
import net.corda.core.crypto.CryptoUtils;
import net.corda.core.crypto.DigestService;
import net.corda.core.crypto.PartialMerkleTree;
import net.corda.core.crypto.SecureHash;
import net.corda.core.crypto.SignableData;
import net.corda.core.crypto.SignatureMetadata;
import net.corda.core.crypto.TransactionSignature;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.flows.NotaryError;
import net.corda.core.flows.StateConsumptionDetails;
import net.corda.core.flows.StateConsumptionDetails.ConsumedStateType;
import net.corda.core.identity.Party;
import net.corda.core.internal.notary.NotaryUtilsKt;
import net.corda.core.serialization.SerializedBytes;
import net.corda.core.transactions.ContractUpgradeFilteredTransaction;
import net.corda.core.transactions.CoreTransaction;
import net.corda.core.transactions.FilteredComponentGroup;
import net.corda.core.transactions.FilteredTransaction;
import net.corda.core.transactions.NotaryChangeWireTransaction;
import net.corda.core.transactions.ReferenceStateRef;
import net.corda.core.transactions.SignedTransaction;
import net.corda.core.transactions.WireTransaction;
import net.corda.core.utilities.OpaqueBytes;
import org.apache.qpid.protonj2.client.DeliveryState;

/** What a worker must answer, judged as a client's flow would. Each claim uses states of its own. */
final class Scenarios {
    /** Requests in flight at once, from two nodes. */
    private static final int CONCURRENT_REQUESTS = 200;

    /** Enough for a message of about 1 MB, thus of many frames. */
    private static final int MANY_STATES = 1_000;

    /** Rivals for one state. */
    private static final int RIVALS = 20;

    private final Network network;
    private final Transactions transactions;
    private final Node alice;
    private final Node bob;
    private final boolean batch;

    Scenarios(Network network, Node alice, Node bob, boolean batch) {
        this.network = network;
        this.transactions = new Transactions(network);
        this.alice = alice;
        this.bob = bob;
        this.batch = batch;
    }

    void judge(Verdicts verdicts) {
        judgeGood(verdicts);
        judgeRepeats(verdicts);
        judgeConflicts(verdicts);
        judgeTimeWindows(verdicts);
        judgeForgeries(verdicts);
        judgeSessions(verdicts);
        judgeLoad(verdicts);
        verdicts.judge("nothing arrived that a node would not have taken", () -> {
            alice.requireNoComplaints();
            bob.requireNoComplaints();
            return (alice.received() + bob.received()) + " messages";
        });
    }

    private void judgeGood(Verdicts verdicts) {
        verdicts.judge("a transaction with one input is notarised", () ->
                notarise(alice, transactions.spending(randomState()).build()));
        verdicts.judge("another party's transaction is notarised", () ->
                notarise(bob, transactions.spending(randomState()).build()));
        verdicts.judge("many inputs, references and a window are notarised", () -> {
            List<StateRef> inputs = outputs(7);
            TimeWindow window = TimeWindow.withTolerance(Instant.now(), Duration.ofMinutes(1));
            return notarise(alice, transactions.spending(inputs)
                    .referring(randomState(), randomState(), randomState()).within(window).build());
        });
        verdicts.judge("an issuance with a window, and then the spending of its output, are notarised", () -> {
            WireTransaction issuance = transactions.issuing(soon()).build();
            notarise(alice, issuance);
            return notarise(bob, transactions.spending(new StateRef(issuance.getId(), 0)).build());
        });
        verdicts.judge(MANY_STATES + " inputs in a message of many frames are notarised", () ->
                notarise(alice, transactions.spending(outputs(MANY_STATES)).build()));
        List<DigestService> otherDigests =
                List.of(DigestService.Companion.getSha2_384(), DigestService.Companion.getSha2_512());
        for (DigestService digest : otherDigests) {
            verdicts.judge("a " + digest.getHashAlgorithm() + " transaction is notarised", () -> {
                StateRef input = new StateRef(SecureHash.random(digest.getHashAlgorithm()), 0);
                return notarise(alice, transactions.spending(input).hashedBy(digest).build());
            });
        }
        verdicts.judge("a notary change to a notary of the network is notarised", () -> {
            NotaryChangeWireTransaction change =
                    transactions.notaryChange(network.otherNotary(), randomState(), randomState());
            return requireNotarised(change.getId(), ask(alice, payload(change, keys(alice))));
        });
        verdicts.judge("a contract upgrade is notarised", () -> {
            ContractUpgradeFilteredTransaction upgrade = transactions.contractUpgrade(randomState());
            return requireNotarised(upgrade.getId(), ask(alice, payload(upgrade, keys(alice))));
        });
    }

    private void judgeRepeats(Verdicts verdicts) {
        verdicts.judge("a retry in a new session is notarised again", () -> {
            WireTransaction transaction = transactions.spending(randomState()).build();
            notarise(alice, transaction);
            return notarise(alice, transaction);
        });
        verdicts.judge("a retry by another party is notarised again", () -> {
            WireTransaction transaction = transactions.spending(randomState()).build();
            notarise(alice, transaction);
            return notarise(bob, transaction);
        });
        verdicts.judge("a retry after its reference was spent is notarised again", () -> {
            StateRef reference = randomState();
            WireTransaction transaction = transactions.spending(randomState()).referring(reference).build();
            notarise(alice, transaction);
            notarise(bob, transactions.spending(reference).build());
            return notarise(alice, transaction);
        });
        verdicts.judge("a retry after its window is over is notarised again", () -> {
            Instant end = Instant.now().plusSeconds(3);
            TimeWindow window = TimeWindow.untilOnly(end);
            WireTransaction transaction = transactions.spending(randomState()).within(window).build();
            notarise(alice, transaction);
            // The one wait for the clock: the claim is about its passing. The worker shares this machine's clock.
            while (!Instant.now().isAfter(end)) {
                Thread.sleep(Duration.between(Instant.now(), end).toMillis() + 1);
            }
            return notarise(alice, transaction);
        });
        verdicts.judge("a message that is delivered twice does no harm", () -> {
            WireTransaction transaction = transactions.spending(randomState()).build();
            SerializedBytes<Object> body = Corda.serialize(payload(filtered(transaction), keys(alice)));
            Node.Started first = alice.start(Node.CLIENT_FLOW, body);
            Node.awaitAccepted(alice.startAgain(first.conversation(), body));
            return requireNotarised(transaction.getId(), finish(alice, first));
        });
    }

    private void judgeConflicts(Verdicts verdicts) {
        verdicts.judge("a double spend is a conflict that names each spent input and its consumer", () -> {
            StateRef spentByAlice = randomState();
            StateRef spentByBob = randomState();
            WireTransaction first = transactions.spending(spentByAlice).build();
            WireTransaction second = transactions.spending(spentByBob).build();
            notarise(alice, first);
            notarise(bob, second);
            WireTransaction rival = transactions.spending(spentByAlice, randomState(), spentByBob).build();
            return requireConflict(rival, ask(alice, payload(filtered(rival), keys(alice))), Map.of(
                    spentByAlice, consumedBy(first, ConsumedStateType.INPUT_STATE),
                    spentByBob, consumedBy(second, ConsumedStateType.INPUT_STATE)));
        });
        verdicts.judge("a reference to a spent state is a conflict of that type", () -> {
            StateRef spent = randomState();
            WireTransaction consumer = transactions.spending(spent).build();
            notarise(alice, consumer);
            WireTransaction reader = transactions.spending(randomState()).referring(spent, randomState()).build();
            return requireConflict(reader, ask(bob, payload(filtered(reader), keys(bob))),
                    Map.of(spent, consumedBy(consumer, ConsumedStateType.REFERENCE_INPUT_STATE)));
        });
        verdicts.judge("a conflict stays a conflict, and its other inputs stay unspent", () -> {
            StateRef spent = randomState();
            StateRef unspent = randomState();
            WireTransaction consumer = transactions.spending(spent).build();
            notarise(alice, consumer);
            WireTransaction rival = transactions.spending(spent, unspent).build();
            for (int i = 0; i < 2; i++) {
                requireConflict(rival, ask(bob, payload(filtered(rival), keys(bob))),
                        Map.of(spent, consumedBy(consumer, ConsumedStateType.INPUT_STATE)));
            }
            return notarise(alice, transactions.spending(unspent).build());
        });
        verdicts.judge("a notary change spends its inputs", () -> {
            StateRef state = randomState();
            NotaryChangeWireTransaction change = transactions.notaryChange(network.otherNotary(), state);
            requireNotarised(change.getId(), ask(alice, payload(change, keys(alice))));
            WireTransaction rival = transactions.spending(state).build();
            return requireConflict(rival, ask(alice, payload(filtered(rival), keys(alice))),
                    Map.of(state, consumedBy(change, ConsumedStateType.INPUT_STATE)));
        });
        verdicts.judge("a contract upgrade spends its inputs", () -> {
            StateRef state = randomState();
            ContractUpgradeFilteredTransaction upgrade = transactions.contractUpgrade(state);
            requireNotarised(upgrade.getId(), ask(alice, payload(upgrade, keys(alice))));
            WireTransaction rival = transactions.spending(state).build();
            return requireConflict(rival, ask(bob, payload(filtered(rival), keys(bob))),
                    Map.of(state, consumedBy(upgrade, ConsumedStateType.INPUT_STATE)));
        });
    }

    private void judgeTimeWindows(Verdicts verdicts) {
        Instant now = Instant.now();
        TimeWindow expired = TimeWindow.untilOnly(now.minusSeconds(1));
        judgeOutside(verdicts, "an expired window is refused", expired);
        judgeOutside(verdicts, "an expired window with two ends is refused",
                TimeWindow.between(now.minusSeconds(60), now.minusSeconds(30)));
        judgeOutside(verdicts, "a window that has not begun is refused",
                TimeWindow.fromOnly(now.plus(Duration.ofHours(1))));
        verdicts.judge("an issuance outside its window is refused, and refused again", () -> {
            WireTransaction issuance = transactions.issuing(expired).build();
            requireRefused(NotaryError.TimeWindowInvalid.class, ask(alice, payload(filtered(issuance), keys(alice))));
            requireRefused(NotaryError.TimeWindowInvalid.class, ask(alice, payload(filtered(issuance), keys(alice))));
            return "";
        });
        verdicts.judge("a conflict is told before the window", () -> {
            StateRef spent = randomState();
            WireTransaction consumer = transactions.spending(spent).build();
            notarise(alice, consumer);
            WireTransaction rival = transactions.spending(spent).within(expired).build();
            return requireConflict(rival, ask(bob, payload(filtered(rival), keys(bob))),
                    Map.of(spent, consumedBy(consumer, ConsumedStateType.INPUT_STATE)));
        });
    }

    private void judgeOutside(Verdicts verdicts, String claim, TimeWindow window) {
        verdicts.judge(claim + ", with the notary's time and the window", () -> {
            WireTransaction transaction = transactions.spending(randomState()).within(window).build();
            Refused refused = requireRefused(
                    NotaryError.TimeWindowInvalid.class, ask(alice, payload(filtered(transaction), keys(alice))));
            NotaryError.TimeWindowInvalid error = (NotaryError.TimeWindowInvalid) refused.exception().getError();
            requireEqual(window, error.getTxTimeWindow(), "window");
            requireEqual(transaction.getId(), refused.exception().getTxId(), "transaction");
            Duration apart = Duration.between(error.getCurrentTime(), Instant.now()).abs();
            require(apart.compareTo(Node.PATIENCE) < 0, "the notary's time is %s away", apart);
            return "at " + error.getCurrentTime();
        });
    }

    private void judgeForgeries(Verdicts verdicts) {
        WireTransaction good = transactions.spending(randomState(), randomState())
                .referring(randomState()).within(soon()).build();
        KeyPair keys = keys(alice);

        judgeRefused(verdicts, "a request signed by another party", NotaryError.RequestSignatureInvalid.class,
                () -> payload(filtered(good), keys(bob)));
        verdicts.judge("a request under another party's name is judged by who sent it", () -> {
            SerializedBytes<Object> ofBob = serialized(payload(filtered(good), keys(bob)));
            Answer answer = finish(alice, alice.startAs(bob.member.party(), ofBob));
            requireRefused(NotaryError.RequestSignatureInvalid.class, answer);
            return "";
        });
        judgeRefused(verdicts, "a request signature over another transaction",
                NotaryError.RequestSignatureInvalid.class,
                () -> payload(filtered(good), good.getInputs(), SecureHash.randomSHA256(), keys));
        judgeRefused(verdicts, "a request signature over other inputs", NotaryError.RequestSignatureInvalid.class,
                () -> payload(filtered(good), List.of(good.getInputs().get(0)), good.getId(), keys));

        StateRef hidden = good.getInputs().get(0);
        judgeInvalid(verdicts, "a hidden input", () -> filtered(good, component -> !hidden.equals(component)));
        judgeInvalid(verdicts, "a group of hidden inputs",
                () -> filtered(good, component -> !(component instanceof StateRef)));
        judgeInvalid(verdicts, "a group of hidden references",
                () -> filtered(good, component -> !(component instanceof ReferenceStateRef)));
        judgeInvalid(verdicts, "a hidden window",
                () -> filtered(good, component -> !(component instanceof TimeWindow)));
        judgeInvalid(verdicts, "a hidden notary",
                () -> filtered(good, component -> !(component instanceof Party)));
        judgeInvalid(verdicts, "an exchanged input", () -> {
            OpaqueBytes other = new OpaqueBytes(Corda.serialize(randomState()).getBytes());
            return replaceGroup(filtered(good), ComponentGroupEnum.INPUTS_GROUP, group -> {
                List<OpaqueBytes> components = new ArrayList<>(group.getComponents());
                components.set(0, other);
                return new FilteredComponentGroup(
                        group.getGroupIndex(), components, group.getNonces(), group.getPartialMerkleTree());
            });
        });
        judgeInvalid(verdicts, "an input left out of its group's list", () ->
                replaceGroup(filtered(good), ComponentGroupEnum.INPUTS_GROUP, group -> new FilteredComponentGroup(
                        group.getGroupIndex(), group.getComponents().subList(0, 1), group.getNonces().subList(0, 1),
                        group.getPartialMerkleTree())));
        judgeInvalid(verdicts, "a wrong id", () -> {
            FilteredTransaction tx = filtered(good);
            return new FilteredTransaction(SecureHash.randomSHA256(), tx.getFilteredComponentGroups(),
                    tx.getGroupHashes(), tx.getDigestService());
        });
        judgeInvalid(verdicts, "a wrong group hash", () -> {
            FilteredTransaction tx = filtered(good);
            List<SecureHash> hashes = new ArrayList<>(tx.getGroupHashes());
            hashes.set(1, SecureHash.randomSHA256());
            return new FilteredTransaction(tx.getId(), tx.getFilteredComponentGroups(), hashes, tx.getDigestService());
        });
        judgeInvalid(verdicts, "a transaction of another notary", () ->
                filtered(transactions.spending(randomState()).notarisedBy(alice.member.party()).build()));
        // A client tries again on its own: the parameters may be on their way. Corda's own notary refuses for good.
        judgeRefused(verdicts, "unknown network parameters", NotaryError.General.class, () ->
                payload(filtered(transactions.spending(randomState()).under(SecureHash.randomSHA256()).build()), keys));
        judgeInvalid(verdicts, "no network parameters", () ->
                filtered(transactions.spending(randomState()).under(null).build()));
        judgeRefused(verdicts, "a notary change to nobody's notary", NotaryError.TransactionInvalid.class, () ->
                payload(transactions.notaryChange(alice.member.party(), randomState()), keys));
        judgeRefused(verdicts, "a whole signed transaction", NotaryError.TransactionInvalid.class, () -> {
            SignatureMetadata metadata = new SignatureMetadata(
                    Transactions.PLATFORM_VERSION, Crypto.findSignatureScheme(keys.getPublic()).getSchemeNumberID());
            TransactionSignature signature = CryptoUtils.sign(keys, new SignableData(good.getId(), metadata));
            return payload(new SignedTransaction(good, List.of(signature)), good.getInputs(), good.getId(), keys);
        });
        verdicts.judge("none of these spent anything", () -> notarise(alice, good));
    }

    private interface Forgery {
        NotarisationPayload make() throws Exception;
    }

    private interface Filtering {
        FilteredTransaction make() throws Exception;
    }

    private void judgeInvalid(Verdicts verdicts, String what, Filtering filtering) {
        // The request signature is right for what is visible, so it is not what the worker stumbles over.
        judgeRefused(verdicts, what, NotaryError.TransactionInvalid.class,
                () -> payload(filtering.make(), keys(alice)));
    }

    private void judgeRefused(Verdicts verdicts, String what, Class<? extends NotaryError> error, Forgery forgery) {
        verdicts.judge(what + " gets " + error.getSimpleName(), () -> {
            Refused refused = requireRefused(error, ask(alice, forgery.make()));
            String message = refused.exception().getMessage().replace('\n', ' ');
            return message.substring(0, Math.min(message.length(), 160));
        });
    }

    private static FilteredTransaction replaceGroup(
            FilteredTransaction tx, ComponentGroupEnum which, UnaryOperator<FilteredComponentGroup> replace) {
        List<FilteredComponentGroup> groups = tx.getFilteredComponentGroups().stream()
                .map(group -> group.getGroupIndex() == which.ordinal() ? replace.apply(group) : group).toList();
        return new FilteredTransaction(tx.getId(), groups, tx.getGroupHashes(), tx.getDigestService());
    }

    private void judgeSessions(Verdicts verdicts) {
        verdicts.judge("a payload that follows the confirm is notarised", () -> {
            WireTransaction transaction = transactions.spending(randomState()).build();
            Node.Started started = alice.start(Node.CLIENT_FLOW, null);
            started.conversation().awaitConfirm();
            Node.awaitAccepted(started.tracker());
            SerializedBytes<Object> data = serialized(payload(filtered(transaction), keys(alice)));
            Node.awaitAccepted(alice.follow(started.conversation(), data));
            return requireNotarised(transaction.getId(), finish(alice, started));
        });
        verdicts.judge("a payload that cannot be decoded gets an error that reveals nothing", () -> {
            Node.Started started = alice.start(Node.CLIENT_FLOW, new SerializedBytes<>("garbage".getBytes("UTF-8")));
            Answer answer = started.conversation().awaitAnswer();
            Node.awaitAccepted(started.tracker());
            require(answer instanceof Unrevealed, "answered with %s", answer);
            return "";
        });
        verdicts.judge("a flow that is not run here is rejected", () -> {
            Node.Started started = alice.start("com.example.OtherFlow", serialized("hello"));
            Answer answer = started.conversation().awaitAnswer();
            Node.awaitAccepted(started.tracker());
            require(answer instanceof Rejected, "answered with %s", answer);
            return ((Rejected) answer).message();
        });
        verdicts.judge("bytes that are no session message are not answered and not kept", () -> {
            DeliveryState.Type outcome = Node.awaitOutcome(alice.sendRaw("garbage".getBytes("UTF-8")));
            require(outcome == DeliveryState.Type.REJECTED, "the delivery ended as %s", outcome);
            return notarise(alice, transactions.spending(randomState()).build());
        });
    }

    private void judgeLoad(Verdicts verdicts) {
        verdicts.judge(CONCURRENT_REQUESTS + " requests at once are all notarised", () -> {
            List<WireTransaction> sent = new ArrayList<>();
            for (int i = 0; i < CONCURRENT_REQUESTS; i++) {
                sent.add(transactions.spending(randomState()).build());
            }
            List<Answer> answers = askAll(sent);
            int largest = 0;
            for (int i = 0; i < CONCURRENT_REQUESTS; i++) {
                requireNotarised(sent.get(i).getId(), answers.get(i));
                for (TransactionSignature signature : ((Notarised) answers.get(i)).response().getSignatures()) {
                    largest = Math.max(largest, leaves(signature.getPartialMerkleTree()));
                }
            }
            require(!batch || largest > 1, "no signature covers more than one transaction");
            return batch ? "up to " + largest + " transactions a signature" : "each signed alone";
        });
        verdicts.judge("of " + RIVALS + " rivals for a state exactly one is notarised, and named to the others", () -> {
            StateRef state = randomState();
            List<WireTransaction> rivals = new ArrayList<>();
            for (int i = 0; i < RIVALS; i++) {
                rivals.add(transactions.spending(state).build());
            }
            List<Answer> answers = askAll(rivals);
            List<WireTransaction> winners = new ArrayList<>();
            for (int i = 0; i < RIVALS; i++) {
                if (answers.get(i) instanceof Notarised) {
                    requireNotarised(rivals.get(i).getId(), answers.get(i));
                    winners.add(rivals.get(i));
                }
            }
            requireEqual(1, winners.size(), "winners");
            for (int i = 0; i < RIVALS; i++) {
                if (rivals.get(i) != winners.get(0)) {
                    requireConflict(rivals.get(i), answers.get(i),
                            Map.of(state, consumedBy(winners.get(0), ConsumedStateType.INPUT_STATE)));
                }
            }
            return "";
        });
    }

    /** Asks for all of them at once, from both nodes in turn. */
    private List<Answer> askAll(List<WireTransaction> all) throws Exception {
        List<CompletableFuture<List<Node.Started>>> halves = new ArrayList<>();
        List<Node> nodes = List.of(alice, bob);
        // Made beforehand, so that the sending is not slowed down by it.
        List<SerializedBytes<Object>> payloads = new ArrayList<>();
        for (int i = 0; i < all.size(); i++) {
            payloads.add(serialized(payload(filtered(all.get(i)), keys(nodes.get(i % nodes.size())))));
        }
        for (int n = 0; n < nodes.size(); n++) {
            int offset = n;
            Node node = nodes.get(n);
            halves.add(CompletableFuture.supplyAsync(() -> {
                List<Node.Started> started = new ArrayList<>();
                try {
                    for (int i = offset; i < all.size(); i += nodes.size()) {
                        // Waits for credit if need be, as a bridge does.
                        started.add(node.start(Node.CLIENT_FLOW, payloads.get(i)));
                    }
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
                return started;
            }));
        }
        List<Answer> answers = new ArrayList<>();
        for (int i = 0; i < all.size(); i++) {
            int half = i % nodes.size();
            answers.add(finish(nodes.get(half), halves.get(half).get().get(i / nodes.size())));
        }
        return answers;
    }

    /** Notarises and verifies; the remark is the form of the signature. */
    private String notarise(Node node, WireTransaction transaction) throws Exception {
        return requireNotarised(transaction.getId(), ask(node, payload(filtered(transaction), keys(node))));
    }

    private Answer ask(Node node, NotarisationPayload payload) throws Exception {
        return finish(node, node.start(Node.CLIENT_FLOW, serialized(payload)));
    }

    /** Waits for the answer, and for the worker to settle the request; then ends the session as a node does. */
    private static Answer finish(Node node, Node.Started started) throws Exception {
        Answer answer = started.conversation().awaitAnswer();
        Node.awaitAccepted(started.tracker());
        if (answer instanceof Notarised) {
            Node.awaitAccepted(node.end(started.conversation()));
        }
        return answer;
    }

    private String requireNotarised(SecureHash id, Answer answer) throws Exception {
        require(answer instanceof Notarised, "answered with %s", describe(answer));
        NotaryUtilsKt.validateSignatures(((Notarised) answer).response(), id, network.notary());
        List<TransactionSignature> signatures = ((Notarised) answer).response().getSignatures();
        requireEqual(1, signatures.size(), "signatures");
        SignatureMetadata metadata = signatures.get(0).getSignatureMetadata();
        requireEqual(Crypto.findSignatureScheme(network.notary().getOwningKey()).getSchemeNumberID(),
                metadata.getSchemeNumberID(), "scheme in the signed metadata");
        PartialMerkleTree tree = signatures.get(0).getPartialMerkleTree();
        require(batch || tree == null, "a batch signature, but this worker signs each transaction alone");
        return tree == null ? "signed alone" : "signed with " + (leaves(tree) - 1) + " others";
    }

    /** Leaves and hidden subtrees count as one each: a lower bound for the transactions that the root covers. */
    private static int leaves(PartialMerkleTree tree) {
        return tree == null ? 0 : leaves(tree.getRoot());
    }

    private static int leaves(PartialMerkleTree.PartialTree tree) {
        return tree instanceof PartialMerkleTree.PartialTree.Node node
                ? leaves(node.getLeft()) + leaves(node.getRight())
                : 1;
    }

    private Refused requireRefused(Class<? extends NotaryError> error, Answer answer) {
        require(answer instanceof Refused, "answered with %s", describe(answer));
        NotaryError found = ((Refused) answer).exception().getError();
        require(error.isInstance(found), "refused with %s: %s", found.getClass().getSimpleName(), found);
        return (Refused) answer;
    }

    private String requireConflict(WireTransaction tx, Answer answer, Map<StateRef, StateConsumptionDetails> expected) {
        Refused refused = requireRefused(NotaryError.Conflict.class, answer);
        NotaryError.Conflict conflict = (NotaryError.Conflict) refused.exception().getError();
        requireEqual(tx.getId(), conflict.getTxId(), "transaction");
        requireEqual(tx.getId(), refused.exception().getTxId(), "transaction of the exception");
        requireEqual(new HashMap<>(expected), new HashMap<>(conflict.getConsumedStates()), "consumed states");
        return expected.size() + " named";
    }

    /** How a conflict names a consumer: never by its id, but by the hash of it. */
    private static StateConsumptionDetails consumedBy(CoreTransaction consumer, ConsumedStateType type) {
        return new StateConsumptionDetails(consumer.getId().reHash(), type);
    }

    private static String describe(Answer answer) {
        return answer instanceof Refused refused ? "Refused: " + refused.exception().getMessage() : answer.toString();
    }

    private static SerializedBytes<Object> serialized(Object value) {
        return Corda.serialize(value);
    }

    private static KeyPair keys(Node node) {
        return node.member.keys();
    }

    private static TimeWindow soon() {
        return TimeWindow.untilOnly(Instant.now().plus(Duration.ofMinutes(10)));
    }

    /** States that are outputs of a few transactions, not in the order in which a request lists them. */
    private static List<StateRef> outputs(int count) {
        List<StateRef> states = new ArrayList<>();
        List<SecureHash> producers = List.of(SecureHash.randomSHA256(), SecureHash.randomSHA256());
        for (int i = count - 1; i >= 0; i--) {
            states.add(new StateRef(producers.get(i % producers.size()), i));
        }
        return states;
    }
}
