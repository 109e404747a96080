package coin;

import co.paralleluniverse.fibers.Suspendable;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.FlowLogic;
import net.corda.core.flows.FlowSession;
import net.corda.core.flows.InitiatedBy;
import net.corda.core.flows.ReceiveFinalityFlow;
import net.corda.core.node.StatesToRecord;
import net.corda.core.transactions.SignedTransaction;

/**
 * Takes a finalised transaction, verifies it and its notary's signature, and keeps all of its coins, of whoever they
 * are.
 */
@InitiatedBy(Finalise.class)
public final class Witness extends FlowLogic<SignedTransaction> {
    private final FlowSession session;

    public Witness(FlowSession session) {
        this.session = session;
    }

    @Suspendable
    @Override
    public SignedTransaction call() throws FlowException {
        return subFlow(new ReceiveFinalityFlow(session, null, StatesToRecord.ALL_VISIBLE));
    }
}
