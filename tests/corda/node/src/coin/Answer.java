package coin;

import java.util.List;
import net.corda.core.crypto.SecureHash;
import net.corda.core.crypto.TransactionSignature;
import net.corda.core.flows.NotaryError;
import net.corda.core.serialization.CordaSerializable;

/** What the notary answered: signatures that the node's own flow has verified, or an error. */
@CordaSerializable
public final class Answer {
    private final SecureHash asked;
    private final List<TransactionSignature> signatures;
    private final NotaryError error;
    private final SecureHash refused;

    /** `refused` is the transaction that the error names, or null. */
    public Answer(SecureHash asked, List<TransactionSignature> signatures, NotaryError error, SecureHash refused) {
        this.asked = asked;
        this.signatures = signatures;
        this.error = error;
        this.refused = refused;
    }

    public SecureHash getAsked() {
        return asked;
    }

    public List<TransactionSignature> getSignatures() {
        return signatures;
    }

    public NotaryError getError() {
        return error;
    }

    public SecureHash getRefused() {
        return refused;
    }
}
