package coin;

import co.paralleluniverse.fibers.Suspendable;
import java.util.Collections;
import java.util.List;
import net.corda.core.crypto.TransactionSignature;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.FlowLogic;
import net.corda.core.flows.NotaryException;
import net.corda.core.flows.NotaryFlow;
import net.corda.core.flows.StartableByRPC;
import net.corda.core.transactions.SignedTransaction;

/** Asks the notary with the node's own flow, and hands over the answer as it is. Nothing is recorded. */
@StartableByRPC
public final class Notarise extends FlowLogic<Answer> {
    private final SignedTransaction transaction;

    public Notarise(SignedTransaction transaction) {
        this.transaction = transaction;
    }

    /** The casts: Kotlin declares a result of `? extends`, which `subFlow` does not take from Java. */
    @SuppressWarnings("unchecked")
    @Suspendable
    @Override
    public Answer call() throws FlowException {
        try {
            List<TransactionSignature> signatures = subFlow((FlowLogic<List<TransactionSignature>>) (FlowLogic<?>)
                    new NotaryFlow.Client(transaction));
            return new Answer(transaction.getId(), signatures, null, null);
        } catch (NotaryException refused) {
            return new Answer(transaction.getId(), Collections.emptyList(), refused.getError(), refused.getTxId());
        }
    }
}
