package coin;

import java.util.Collections;
import java.util.List;
import net.corda.core.contracts.BelongsToContract;
import net.corda.core.contracts.ContractState;
import net.corda.core.identity.AbstractParty;
import net.corda.core.identity.Party;

/**
 * A coin of one party. Whoever holds a copy may build a transaction that spends it: the notary decides who was first.
 */
@BelongsToContract(CoinContract.class)
public final class Coin implements ContractState {
    private final Party owner;
    private final int number;

    public Coin(Party owner, int number) {
        this.owner = owner;
        this.number = number;
    }

    public Party getOwner() {
        return owner;
    }

    public int getNumber() {
        return number;
    }

    @Override
    public List<AbstractParty> getParticipants() {
        return Collections.singletonList(owner);
    }
}
