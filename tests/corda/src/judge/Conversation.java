package judge;

import static judge.Verdicts.require;

import java.io.NotSerializableException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.NotarisationResponse;
import net.corda.core.flows.NotaryException;
import net.corda.core.flows.WaitTimeUpdate;
import net.corda.core.identity.Party;
import net.corda.node.services.statemachine.ConfirmSessionMessage;
import net.corda.node.services.statemachine.DataSessionMessage;
import net.corda.node.services.statemachine.EndSessionMessage;
import net.corda.node.services.statemachine.ErrorSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessagePayload;
import net.corda.node.services.statemachine.RejectSessionMessage;

/**
 * A flow session from the client's side. It takes messages only in the order in which a client's flow survives them: a
 * confirm first and once, then data, then the end; or an error, or a rejection in place of the confirm.
 */
final class Conversation {
    /** How the notary answered. */
    sealed interface Answer {}

    record Notarised(NotarisationResponse response) implements Answer {}

    record Refused(NotaryException exception) implements Answer {}

    /** An error that reveals nothing: something broke on the notary's side. */
    record Unrevealed() implements Answer {}

    /** No session at all. */
    record Rejected(String message) implements Answer {}

    /** The notary's half of the session, once confirmed. */
    record Peer(Party party, long sessionId, int flowVersion) {}

    private enum State {
        INITIATING, CONFIRMED, RESPONDED, OVER
    }

    final long sessionId;
    final long entropy;
    private final CompletableFuture<Peer> peer = new CompletableFuture<>();
    private final CompletableFuture<Answer> answer = new CompletableFuture<>();
    private State state = State.INITIATING;
    private NotarisationResponse response;
    private volatile String violation;

    Conversation(long sessionId, long entropy) {
        this.sessionId = sessionId;
        this.entropy = entropy;
    }

    /** Takes one message for this session, sent by `from`. Called by one thread only. */
    void receive(Party from, ExistingSessionMessagePayload message) {
        try {
            advance(from, message);
        } catch (Exception | AssertionError e) {
            violation = "a client's flow would fail: " + (e instanceof AssertionError ? e.getMessage() : e.toString());
            peer.completeExceptionally(new AssertionError(violation));
            answer.completeExceptionally(new AssertionError(violation));
        }
    }

    private void advance(Party from, ExistingSessionMessagePayload message) throws NotSerializableException {
        if (message instanceof ConfirmSessionMessage confirm) {
            require(state == State.INITIATING, "a confirm in state %s", state);
            state = State.CONFIRMED;
            peer.complete(new Peer(from, confirm.getInitiatedSessionId().getToLong(),
                    confirm.getInitiatedFlowInfo().getFlowVersion()));
        } else if (message instanceof RejectSessionMessage reject) {
            require(state == State.INITIATING, "a rejection in state %s", state);
            state = State.OVER;
            peer.completeExceptionally(new AssertionError("the session was rejected: " + reject.getMessage()));
            answer.complete(new Rejected(reject.getMessage()));
        } else if (message instanceof DataSessionMessage data) {
            require(state == State.CONFIRMED, "data in state %s", state);
            receiveData(Corda.deserialize(Object.class, data.getPayload()));
        } else if (message instanceof ErrorSessionMessage error) {
            require(state == State.CONFIRMED, "an error in state %s", state);
            state = State.OVER;
            FlowException exception = error.getFlowException();
            if (exception == null) {
                answer.complete(new Unrevealed());
            } else {
                require(exception instanceof NotaryException, "not an error of a notary: %s", exception);
                answer.complete(new Refused((NotaryException) exception));
            }
        } else if (message instanceof EndSessionMessage) {
            require(state == State.RESPONDED, "the end in state %s", state);
            state = State.OVER;
            answer.complete(new Notarised(response));
        } else {
            throw new AssertionError("an unknown kind of session message: " + message);
        }
    }

    private void receiveData(Object payload) {
        if (payload instanceof NotarisationResponse notarised) {
            state = State.RESPONDED;
            response = notarised;
        } else {
            // Only a hint to be patient.
            require(payload instanceof WaitTimeUpdate, "unexpected data: %s", payload);
        }
    }

    Peer awaitConfirm() throws Exception {
        return await(peer, "confirm");
    }

    Answer awaitAnswer() throws Exception {
        return await(answer, "answer");
    }

    /** What went wrong after the answer, if anything. */
    String violation() {
        return violation;
    }

    private <T> T await(CompletableFuture<T> future, String what) throws Exception {
        try {
            return future.get(Node.PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (TimeoutException e) {
            throw new AssertionError("no " + what + " within " + Node.PATIENCE);
        } catch (ExecutionException e) {
            throw new AssertionError(e.getCause().getMessage());
        }
    }
}
