package nodes;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import coin.Answer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.crypto.SecureHash;
import net.corda.core.crypto.TransactionSignature;
import net.corda.core.flows.NotaryError;
import net.corda.core.flows.StateConsumptionDetails;
import net.corda.core.flows.StateConsumptionDetails.ConsumedStateType;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.node.NodeInfo;
import net.corda.core.transactions.SignedTransaction;

/** The two nodes of the tests, coins that both of them know, and what their notary's answers must be. */
final class Parties {
    /** Coins of one issuance. */
    private static final int COINS = 400;

    final ClientNode alice;
    final ClientNode bob;
    final Party notary;
    final Party otherNotary;
    private final Deque<StateRef> coins = new ArrayDeque<>();

    Parties(ClientNode alice, ClientNode bob) {
        this.alice = alice;
        this.bob = bob;
        notary = notary(Network.NOTARY);
        otherNotary = notary(Network.OTHER_NOTARY);
    }

    private Party notary(String name) {
        Party found = alice.rpc().notaryPartyFromX500Name(CordaX500Name.parse(name));
        require(found != null, "no notary %s in Alice's network map", name);
        return found;
    }

    /** The nodes that serve under the notary's key. */
    List<NodeInfo> workers() {
        return alice.rpc().networkMapSnapshot().stream()
                .filter(node -> node.getLegalIdentities().stream()
                        .anyMatch(identity -> identity.getOwningKey().equals(notary.getOwningKey())))
                .toList();
    }

    /** A coin that nobody has spent. Alice issued it, and Bob keeps a copy. */
    StateRef coin() {
        if (coins.isEmpty()) {
            SignedTransaction issuance = alice.issuing(notary, COINS, null);
            ClientNode.await(alice.finalising(issuance, bob.party()));
            for (int i = 0; i < COINS; i++) {
                coins.add(new StateRef(issuance.getId(), i));
            }
        }
        return coins.remove();
    }

    List<StateRef> coins(int count) {
        List<StateRef> taken = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            taken.add(coin());
        }
        return taken;
    }

    SignedTransaction spending(ClientNode by, StateRef... inputs) {
        return by.spending(notary, List.of(inputs), List.of(), null);
    }

    SignedTransaction spendingWithin(TimeWindow window, StateRef... inputs) {
        return alice.spending(notary, List.of(inputs), List.of(), window);
    }

    /** Notarised: at least one signature, all of them by the notary and over this transaction. */
    String requireNotarised(SecureHash id, Answer answer) {
        require(answer.getError() == null, "refused: %s", answer.getError());
        requireEqual(id, answer.getAsked(), "transaction");
        return requireSigned(id, answer.getSignatures());
    }

    String requireSigned(SecureHash id, Collection<TransactionSignature> signatures) {
        List<TransactionSignature> byNotary = signatures.stream()
                .filter(signature -> signature.getBy().equals(notary.getOwningKey())).toList();
        require(!byNotary.isEmpty(), "no signature of the notary");
        for (TransactionSignature signature : byNotary) {
            try {
                signature.verify(id);
            } catch (java.security.GeneralSecurityException e) {
                throw new AssertionError("the notary's signature is not over " + id, e);
            }
        }
        return id.prefixChars(8);
    }

    /** What a conflict must say of a state: who consumed it, and as what it was asked for. */
    static StateConsumptionDetails consumedBy(SecureHash consumer, ConsumedStateType type) {
        return new StateConsumptionDetails(consumer.reHash(), type);
    }

    static StateConsumptionDetails consumedBy(SignedTransaction consumer) {
        return consumedBy(consumer.getId(), ConsumedStateType.INPUT_STATE);
    }

    /** A conflict over exactly these states, each with the hash of its consumer's id. */
    static String requireConflict(
            SignedTransaction asked, Answer answer, Map<StateRef, StateConsumptionDetails> consumed) {
        require(answer.getError() != null, "notarised: %s", asked.getId());
        require(answer.getError() instanceof NotaryError.Conflict, "refused otherwise: %s", answer.getError());
        NotaryError.Conflict conflict = (NotaryError.Conflict) answer.getError();
        requireEqual(asked.getId(), conflict.getTxId(), "transaction of the conflict");
        requireEqual(asked.getId(), answer.getRefused(), "transaction of the exception");
        requireEqual(consumed, conflict.getConsumedStates(), "consumed states");
        return consumed.size() == 1 ? "1 state" : consumed.size() + " states";
    }

    static <T extends NotaryError> T requireRefused(Class<T> kind, SignedTransaction asked, Answer answer) {
        require(answer.getError() != null, "notarised: %s", asked.getId());
        require(kind.isInstance(answer.getError()), "refused otherwise: %s", answer.getError());
        requireEqual(asked.getId(), answer.getRefused(), "transaction of the exception");
        return kind.cast(answer.getError());
    }

}
