package coin;

import co.paralleluniverse.fibers.Suspendable;
import java.util.Collections;
import java.util.List;
import net.corda.core.contracts.StateAndRef;
import net.corda.core.contracts.StateRef;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.FlowLogic;
import net.corda.core.flows.StartableByRPC;
import net.corda.core.transactions.SignedTransaction;
import net.corda.core.transactions.TransactionBuilder;

/** Builds and signs a transaction; nobody else hears of it yet. */
@StartableByRPC
public final class Build extends FlowLogic<SignedTransaction> {
    private final Plan plan;

    public Build(Plan plan) {
        this.plan = plan;
    }

    /** A transaction of its own each time, even for the same plan: the builder adds a new salt. */
    @Suspendable
    @Override
    public SignedTransaction call() throws FlowException {
        List<StateRef> inputs = plan.getInputs();
        TransactionBuilder builder = new TransactionBuilder(plan.getNotary());
        for (StateRef input : inputs) {
            StateAndRef<Coin> spent = getServiceHub().toStateAndRef(input);
            builder.addInputState(spent);
        }
        for (StateRef reference : plan.getReferences()) {
            StateAndRef<Coin> referred = getServiceHub().toStateAndRef(reference);
            builder.addReferenceState(referred.referenced());
        }
        int made = inputs.isEmpty() ? plan.getIssued() : inputs.size();
        for (int i = 0; i < made; i++) {
            builder.addOutputState(new Coin(getOurIdentity(), i), CoinContract.class.getName());
        }
        builder.addCommand(
                inputs.isEmpty() ? new CoinContract.Issue() : new CoinContract.Move(),
                Collections.singletonList(getOurIdentity().getOwningKey()));
        if (plan.getWindow() != null) {
            builder.setTimeWindow(plan.getWindow());
        }
        return getServiceHub().signInitialTransaction(builder);
    }
}
