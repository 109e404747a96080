package coin;

import co.paralleluniverse.fibers.Suspendable;
import java.util.Collections;
import net.corda.core.flows.FinalityFlow;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.FlowLogic;
import net.corda.core.flows.FlowSession;
import net.corda.core.flows.InitiatingFlow;
import net.corda.core.flows.StartableByRPC;
import net.corda.core.identity.Party;
import net.corda.core.transactions.SignedTransaction;

/** Notarises if the transaction needs it, records it, and hands it to a witness, who verifies all of it again. */
@StartableByRPC
@InitiatingFlow
public final class Finalise extends FlowLogic<SignedTransaction> {
    private final SignedTransaction transaction;
    private final Party witness;

    public Finalise(SignedTransaction transaction, Party witness) {
        this.transaction = transaction;
        this.witness = witness;
    }

    @Suspendable
    @Override
    public SignedTransaction call() throws FlowException {
        FlowSession session = initiateFlow(witness);
        return subFlow(new FinalityFlow(transaction, Collections.singletonList(session)));
    }
}
