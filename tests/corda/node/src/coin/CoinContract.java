package coin;

import net.corda.core.contracts.CommandData;
import net.corda.core.contracts.Contract;
import net.corda.core.contracts.TypeOnlyCommandData;
import net.corda.core.transactions.LedgerTransaction;

/** Coins come from nothing when issued, and are never made or destroyed when moved. Any signer will do. */
public final class CoinContract implements Contract {
    public static final class Issue extends TypeOnlyCommandData {}

    public static final class Move extends TypeOnlyCommandData {}

    @Override
    public void verify(LedgerTransaction transaction) {
        CommandData command = transaction.getCommand(0).getValue();
        int spent = transaction.inputsOfType(Coin.class).size();
        int made = transaction.outputsOfType(Coin.class).size();
        boolean holds = command instanceof Issue ? spent == 0 && made > 0 : spent == made;
        if (!holds) {
            throw new IllegalArgumentException(spent + " coins in, " + made + " out");
        }
    }
}
