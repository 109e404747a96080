package coin;

import java.util.List;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.identity.Party;
import net.corda.core.serialization.CordaSerializable;

/** A transaction to be built: it moves the coins of its inputs or, without inputs, issues `issued` new ones. */
@CordaSerializable
public final class Plan {
    private final Party notary;
    private final List<StateRef> inputs;
    private final List<StateRef> references;
    private final int issued;
    private final TimeWindow window;

    /** `window` may be null. */
    public Plan(Party notary, List<StateRef> inputs, List<StateRef> references, int issued, TimeWindow window) {
        this.notary = notary;
        this.inputs = inputs;
        this.references = references;
        this.issued = issued;
        this.window = window;
    }

    public Party getNotary() {
        return notary;
    }

    public List<StateRef> getInputs() {
        return inputs;
    }

    public List<StateRef> getReferences() {
        return references;
    }

    public int getIssued() {
        return issued;
    }

    public TimeWindow getWindow() {
        return window;
    }
}
