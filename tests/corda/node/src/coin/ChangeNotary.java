package coin;

import co.paralleluniverse.fibers.Suspendable;
import net.corda.core.contracts.StateAndRef;
import net.corda.core.contracts.StateRef;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.FlowLogic;
import net.corda.core.flows.NotaryChangeFlow;
import net.corda.core.flows.StartableByRPC;
import net.corda.core.identity.Party;

/** Moves a coin to another notary, with the node's own flow. */
@StartableByRPC
public final class ChangeNotary extends FlowLogic<StateAndRef<Coin>> {
    private final StateRef coin;
    private final Party notary;

    public ChangeNotary(StateRef coin, Party notary) {
        this.coin = coin;
        this.notary = notary;
    }

    /** The casts: Kotlin declares a result of `? extends Coin`, which `subFlow` does not take from Java. */
    @SuppressWarnings("unchecked")
    @Suspendable
    @Override
    public StateAndRef<Coin> call() throws FlowException {
        StateAndRef<Coin> original = getServiceHub().toStateAndRef(coin);
        return subFlow((FlowLogic<StateAndRef<Coin>>) (FlowLogic<?>)
                new NotaryChangeFlow<>(original, notary, NotaryChangeFlow.Companion.tracker()));
    }
}
