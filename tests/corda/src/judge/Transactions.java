package judge;

import java.security.InvalidKeyException;
import java.security.KeyPair;
import java.security.SignatureException;
import java.util.List;
import java.util.function.Predicate;
import net.corda.core.contracts.AlwaysAcceptAttachmentConstraint;
import net.corda.core.contracts.Command;
import net.corda.core.contracts.ContractState;
import net.corda.core.contracts.PrivacySalt;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.contracts.TransactionState;
import net.corda.core.contracts.TypeOnlyCommandData;
import net.corda.core.crypto.CryptoUtils;
import net.corda.core.crypto.DigestService;
import net.corda.core.crypto.SecureHash;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.flows.NotarisationRequest;
import net.corda.core.flows.NotarisationRequestSignature;
import net.corda.core.identity.AbstractParty;
import net.corda.core.identity.Party;
import net.corda.core.internal.ContractUpgradeTransactionBuilder;
import net.corda.core.internal.NotaryChangeTransactionBuilder;
import net.corda.core.internal.TransactionUtilsKt;
import net.corda.core.transactions.ContractUpgradeFilteredTransaction;
import net.corda.core.transactions.CoreTransaction;
import net.corda.core.transactions.FilteredTransaction;
import net.corda.core.transactions.NetworkParametersHash;
import net.corda.core.transactions.NotaryChangeWireTransaction;
import net.corda.core.transactions.ReferenceStateRef;
import net.corda.core.transactions.WireTransaction;

/** Builds transactions, and the payloads that ask for their notarisation, with Corda's classes. */
public final class Transactions {
    /** What the requester's signature states; that of Corda 4.10. */
    public static final int PLATFORM_VERSION = 12;

    private final Network network;

    public Transactions(Network network) {
        this.network = network;
    }

    /** A state for outputs. Notaries never see it; it only makes the transactions whole. */
    record Coin(AbstractParty owner) implements ContractState {
        public AbstractParty getOwner() {
            return owner;
        }

        @Override
        public List<AbstractParty> getParticipants() {
            return List.of(owner);
        }
    }

    /** The command beside it. */
    static final class Move extends TypeOnlyCommandData {}

    /** What may vary in a transaction between the tests. */
    public record Draft(List<StateRef> inputs, List<StateRef> references, TimeWindow window, DigestService digest,
            Party notary, SecureHash parametersHash) {
        public Draft referring(StateRef... states) {
            return new Draft(inputs, List.of(states), window, digest, notary, parametersHash);
        }

        public Draft within(TimeWindow timeWindow) {
            return new Draft(inputs, references, timeWindow, digest, notary, parametersHash);
        }

        public Draft hashedBy(DigestService service) {
            return new Draft(inputs, references, window, service, notary, parametersHash);
        }

        public Draft notarisedBy(Party otherNotary) {
            return new Draft(inputs, references, window, digest, otherNotary, parametersHash);
        }

        public Draft under(SecureHash otherParameters) {
            return new Draft(inputs, references, window, digest, notary, otherParameters);
        }

        /** Each call gives another transaction: the privacy salt is random. */
        public WireTransaction build() {
            Coin coin = new Coin(notary);
            TransactionState<Coin> output = new TransactionState<>(
                    coin, "judge.CoinContract", notary, null, AlwaysAcceptAttachmentConstraint.INSTANCE);
            Command<Move> command = new Command<>(new Move(), notary.getOwningKey());
            return new WireTransaction(
                    TransactionUtilsKt.createComponentGroups(inputs, List.of(output), List.of(command),
                            List.of(SecureHash.randomSHA256()), notary, window, references, parametersHash),
                    PrivacySalt.createFor(digest.getHashAlgorithm()), digest);
        }
    }

    public Draft spending(List<StateRef> inputs) {
        return new Draft(inputs, List.of(), null, DigestService.Companion.getSha2_256(),
                network.notary(), network.parametersHash());
    }

    public Draft spending(StateRef... inputs) {
        return spending(List.of(inputs));
    }

    /** A transaction without inputs; it needs a window, or no notary would see it. */
    public Draft issuing(TimeWindow window) {
        return spending().within(window);
    }

    NotaryChangeWireTransaction notaryChange(Party newNotary, StateRef... inputs) {
        return new NotaryChangeTransactionBuilder(List.of(inputs), network.notary(), newNotary,
                network.parametersHash(), DigestService.Companion.getSha2_256()).build();
    }

    ContractUpgradeFilteredTransaction contractUpgrade(StateRef... inputs) {
        return new ContractUpgradeTransactionBuilder(List.of(inputs), network.notary(), SecureHash.randomSHA256(),
                "judge.NewCoinContract", SecureHash.randomSHA256(), new PrivacySalt(), network.parametersHash(),
                DigestService.Companion.getSha2_256()).build().buildFilteredTransaction();
    }

    /** What a client shows to a non-validating notary, and nothing else. */
    static boolean isForNotary(Object component, Party notary) {
        return component instanceof StateRef || component instanceof ReferenceStateRef
                || component instanceof TimeWindow || component instanceof NetworkParametersHash
                || notary.equals(component);
    }

    public static FilteredTransaction filtered(WireTransaction transaction) {
        return filtered(transaction, component -> true);
    }

    /** The same with some of it hidden: a client must not do that. */
    public static FilteredTransaction filtered(WireTransaction transaction, Predicate<Object> unhidden) {
        Party notary = transaction.getNotary();
        return transaction.buildFilteredTransaction(
                component -> isForNotary(component, notary) && unhidden.test(component));
    }

    /** The payload, its request signed with `keys`. */
    public static NotarisationPayload payload(Object transaction, List<StateRef> inputs, SecureHash id, KeyPair keys)
            throws InvalidKeyException, SignatureException {
        byte[] request = Corda.serialize(new NotarisationRequest(inputs, id)).getBytes();
        NotarisationRequestSignature signature =
                new NotarisationRequestSignature(CryptoUtils.sign(keys, request), PLATFORM_VERSION);
        return new NotarisationPayload(transaction, signature);
    }

    public static NotarisationPayload payload(CoreTransaction transaction, KeyPair keys)
            throws InvalidKeyException, SignatureException {
        return payload(transaction, transaction.getInputs(), transaction.getId(), keys);
    }

    public static StateRef randomState() {
        return new StateRef(SecureHash.randomSHA256(), 0);
    }
}
