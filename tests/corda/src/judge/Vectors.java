package judge;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.SignatureException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import net.corda.core.contracts.ComponentGroupEnum;
import net.corda.core.contracts.StateRef;
import net.corda.core.crypto.Crypto;
import net.corda.core.crypto.CryptoUtils;
import net.corda.core.crypto.PartialMerkleTree;
import net.corda.core.crypto.SecureHash;
import net.corda.core.crypto.SignableData;
import net.corda.core.crypto.SignatureMetadata;
import net.corda.core.crypto.TransactionSignature;
import net.corda.core.flows.NotarisationPayload;
import net.corda.core.flows.NotarisationRequest;
import net.corda.core.flows.NotarisationResponse;
import net.corda.core.flows.NotaryError;
import net.corda.core.flows.NotaryException;
import net.corda.core.flows.WaitTimeUpdate;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.internal.SignedDataWithCert;
import net.corda.core.internal.notary.NotaryUtilsKt;
import net.corda.core.node.NetworkParameters;
import net.corda.core.node.NodeInfo;
import net.corda.core.transactions.CoreTransaction;
import net.corda.core.transactions.FilteredTransaction;
import net.corda.core.transactions.SignedTransaction;
import net.corda.core.transactions.WireTransaction;
import net.corda.node.services.statemachine.ConfirmSessionMessage;
import net.corda.node.services.statemachine.DataSessionMessage;
import net.corda.node.services.statemachine.EndSessionMessage;
import net.corda.node.services.statemachine.ErrorSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessage;
import net.corda.node.services.statemachine.InitialSessionMessage;
import net.corda.node.services.statemachine.RejectSessionMessage;
import net.corda.node.services.statemachine.SessionMessage;
import net.corda.nodeapi.internal.SignedNodeInfo;
import net.corda.nodeapi.internal.network.NetworkMapKt;

/**
 * Reads the test vectors with real Corda code. It shows that the set-up of Corda's code works here, and that the
 * vectors, on which the worker's own tests rest, say of Corda what they claim.
 */
final class Vectors {
    /** The groups that must be visible as a whole. */
    private static final List<ComponentGroupEnum> VISIBLE_GROUPS = List.of(
            ComponentGroupEnum.INPUTS_GROUP, ComponentGroupEnum.TIMEWINDOW_GROUP,
            ComponentGroupEnum.REFERENCES_GROUP, ComponentGroupEnum.PARAMETERS_GROUP);

    private final Path directory;
    private final JsonNode manifest;
    private final Party alice;
    private final Party notary;

    private Vectors(Path directory) throws IOException, GeneralSecurityException {
        this.directory = directory;
        this.manifest = new ObjectMapper().readTree(directory.resolve("manifest.json").toFile());
        this.alice = party(manifest.at("/parties/alice"));
        this.notary = party(manifest.at("/parties/notary"));
    }

    static void judge(Path directory, Verdicts verdicts) throws IOException, GeneralSecurityException {
        Vectors vectors = new Vectors(directory);
        for (JsonNode entry : vectors.manifest.get("vectors")) {
            verdicts.judge(entry.get("file").asText() + " is what the manifest says", () -> vectors.check(entry));
        }
    }

    /** Checks one vector; the remark is its kind. */
    private String check(JsonNode entry) throws Exception {
        byte[] bytes = Files.readAllBytes(directory.resolve(entry.get("file").asText()));
        requireEqual(entry.get("length").asInt(), bytes.length, "length");
        requireEqual(entry.get("sha256").asText(), hex(MessageDigest.getInstance("SHA-256").digest(bytes)), "SHA-256");

        JsonNode expected = entry.get("expected");
        String kind = entry.get("kind").asText();
        switch (kind.split("[ <(]")[0]) {
            case "NotarisationPayload" -> checkPayload(bytes, expected);
            case "NotarisationRequest" -> checkRequest(bytes, expected, entry.get("file").asText());
            case "WireTransaction" -> requireEqual(hash(expected.get("txId")), wire(bytes).getId(), "id");
            case "InitialSessionMessage" -> checkInitial(bytes, expected);
            case "ExistingSessionMessage" -> checkExisting(bytes, expected);
            case "NotarisationResponse" -> checkResponse(bytes, expected);
            case "SignableData" -> checkSignable(bytes, expected);
            case "TransactionSignature" ->
                    Corda.deserialize(TransactionSignature.class, bytes).verify(hash(expected.get("txId")));
            case "PartialMerkleTree" -> checkTree(bytes, expected);
            case "WaitTimeUpdate" -> checkWaitTime(bytes, expected);
            case "CompositeKey" -> requireEqual(expected.get("toStringShort").asText(),
                    CryptoUtils.toStringShort(Crypto.decodePublicKey(bytes)), "key");
            case "Party" -> requireEqual(CordaX500Name.parse(expected.get("name").asText()),
                    Corda.deserialize(Party.class, bytes).getName(), "name");
            case "SignedNodeInfo" -> checkNodeInfo(bytes, expected);
            case "SignedDataWithCert" -> checkParameters(bytes, expected);
            default -> throw new AssertionError("no check for the kind " + kind);
        }
        return kind;
    }

    private void checkPayload(byte[] bytes, JsonNode expected) throws Exception {
        NotarisationPayload payload = Corda.deserialize(NotarisationPayload.class, bytes);
        String rejectedAt = expected.path("rejectedAt").asText("");
        String failedAt = "";
        try {
            for (NotaryCheck check : notaryChecks(payload)) {
                failedAt = check.name();
                check.body().run();
            }
            failedAt = "";
        } catch (Exception e) {
            require(!rejectedAt.isEmpty(), "Corda refuses it at %s: %s", failedAt, e);
        }
        requireEqual(rejectedAt, failedAt, "the check that refuses it");
        if (rejectedAt.isEmpty()) {
            CoreTransaction transaction = transaction(payload);
            requireEqual(hash(expected.get("txId")), transaction.getId(), "id");
            requireEqual(states(expected.get("inputs")), transaction.getInputs(), "inputs");
        }
    }

    private record NotaryCheck(String name, Body body) {
        interface Body {
            void run() throws Exception;
        }
    }

    /** What a notary of Corda checks of a payload, under the names of the manifest. */
    private List<NotaryCheck> notaryChecks(NotarisationPayload payload) throws Exception {
        CoreTransaction transaction = transaction(payload);
        List<NotaryCheck> checks = new ArrayList<>();
        checks.add(new NotaryCheck("notary check", () ->
                requireArgument(transaction.getNotary().getOwningKey().equals(notary.getOwningKey()))));
        if (transaction instanceof FilteredTransaction filtered) {
            checks.add(new NotaryCheck("FilteredTransaction.verify", filtered::verify));
            for (ComponentGroupEnum group : VISIBLE_GROUPS) {
                String name = group.name().replace("_GROUP", "");
                checks.add(new NotaryCheck("checkAllComponentsVisible(" + name + ")",
                        () -> filtered.checkAllComponentsVisible(group)));
            }
        }
        NotarisationRequest request = new NotarisationRequest(transaction.getInputs(), transaction.getId());
        checks.add(new NotaryCheck("request signature",
                () -> NotaryUtilsKt.verifySignature(request, payload.getRequestSignature(), alice)));
        return checks;
    }

    private static void requireArgument(boolean holds) {
        if (!holds) {
            throw new IllegalArgumentException();
        }
    }

    private static CoreTransaction transaction(NotarisationPayload payload) {
        return payload.getTransaction() instanceof SignedTransaction signed
                ? signed.getCoreTransaction()
                : payload.getCoreTransaction();
    }

    /** The request is never sent, only signed: so it is built and serialized anew, and must give these bytes. */
    private void checkRequest(byte[] bytes, JsonNode expected, String file) throws Exception {
        JsonNode listed = expected.get("statesToConsumeSorted");
        List<StateRef> inputs;
        if (listed != null) {
            inputs = states(listed);
        } else {
            byte[] payload = Files.readAllBytes(directory.resolve(file.replace(".request", "")));
            inputs = transaction(Corda.deserialize(NotarisationPayload.class, payload)).getInputs();
        }
        NotarisationRequest request = new NotarisationRequest(inputs, hash(expected.get("txId")));
        require(Arrays.equals(bytes, Corda.serialize(request).getBytes()), "Corda serializes it in another way");
    }

    private static WireTransaction wire(byte[] bytes) throws Exception {
        return (WireTransaction) Corda.deserialize(CoreTransaction.class, bytes);
    }

    private static void checkInitial(byte[] bytes, JsonNode expected) throws Exception {
        if (expected.path("verify").asText().equals("reject")) {
            try {
                Corda.deserialize(SessionMessage.class, bytes);
            } catch (UnsupportedOperationException refused) {
                return;
            }
            throw new AssertionError("Corda accepts it");
        }
        InitialSessionMessage message = (InitialSessionMessage) Corda.deserialize(SessionMessage.class, bytes);
        long session = message.getInitiatorSessionId().getToLong();
        requireEqual(expected.get("initiatorSessionId").asLong(), session, "session");
        requireEqual(expected.has("telemetryKeys"), message.getSerializedTelemetry() != null, "has telemetry");
    }

    private static void checkExisting(byte[] bytes, JsonNode expected) throws Exception {
        ExistingSessionMessage message = (ExistingSessionMessage) Corda.deserialize(SessionMessage.class, bytes);
        long session = message.getRecipientSessionId().getToLong();
        requireEqual(expected.get("recipientSessionId").asLong(), session, "session");
        if (message.getPayload() instanceof ConfirmSessionMessage confirm) {
            long initiated = confirm.getInitiatedSessionId().getToLong();
            requireEqual(expected.get("initiatedSessionId").asLong(), initiated, "initiated session");
        } else if (message.getPayload() instanceof ErrorSessionMessage error) {
            checkError(error, expected);
        } else if (message.getPayload() instanceof RejectSessionMessage reject) {
            requireEqual(expected.get("message").asText(), reject.getMessage(), "message");
        } else if (message.getPayload() instanceof DataSessionMessage data) {
            require(expected.has("payloadFile"), "data without a payload file");
            require(data.getPayload().getSize() > 0, "empty data");
        } else {
            require(message.getPayload() instanceof EndSessionMessage, "unexpected %s", message.getPayload());
        }
    }

    private static void checkError(ErrorSessionMessage error, JsonNode expected) {
        requireEqual(expected.get("errorId").asLong(), error.getErrorId(), "error id");
        if (!expected.has("error")) {
            require(error.getFlowException() == null, "an exception where none is expected");
            return;
        }
        NotaryException exception = (NotaryException) error.getFlowException();
        NotaryError found = exception.getError();
        requireEqual(expected.get("error").asText(), found.getClass().getSimpleName(), "error");
        requireEqual(expected.get("message").asText(), exception.getMessage(), "message");
        if (found instanceof NotaryError.Conflict conflict) {
            Map<StateRef, String> details = new HashMap<>();
            for (JsonNode state : expected.get("consumedStates")) {
                details.put(state(state), state.get("hashOfTransactionId").asText() + " " + state.get("type").asText());
            }
            Map<StateRef, String> decoded = new HashMap<>();
            conflict.getConsumedStates().forEach(
                    (state, by) -> decoded.put(state, by.getHashOfTransactionId() + " " + by.getType()));
            requireEqual(details, decoded, "consumed states");
        }
    }

    private void checkResponse(byte[] bytes, JsonNode expected) throws Exception {
        if (expected.path("verify").asText().equals("reject")) {
            // The manifest names the transaction to check against in its text only: it is the first one in each case.
            SecureHash checkedAgainst = hash(manifest.at("/vectors/0/expected/txId"));
            NotarisationResponse response = Corda.deserialize(NotarisationResponse.class, bytes);
            try {
                NotaryUtilsKt.validateSignatures(response, checkedAgainst, notary);
            } catch (Exception refused) {
                // Kotlin throws SignatureException without declaring it.
                if (refused instanceof SignatureException || refused instanceof IllegalArgumentException) {
                    return;
                }
                throw refused;
            }
            throw new AssertionError("Corda accepts it");
        }
        PublicKey key = notary.getOwningKey();
        if (expected.has("notaryKeyFile")) {
            key = Crypto.decodePublicKey(Files.readAllBytes(directory.resolve(expected.get("notaryKeyFile").asText())));
        }
        NotarisationResponse response = Corda.deserialize(NotarisationResponse.class, bytes);
        NotaryUtilsKt.validateSignatures(response, hash(expected.get("txId")), new Party(notary.getName(), key));
    }

    private static void checkSignable(byte[] bytes, JsonNode expected) {
        SignatureMetadata metadata =
                new SignatureMetadata(expected.get("platformVersion").asInt(), expected.get("schemeNumberID").asInt());
        SecureHash signed = hash(expected.get(expected.has("root") ? "root" : "txId"));
        byte[] serialized = Corda.serialize(new SignableData(signed, metadata)).getBytes();
        require(Arrays.equals(bytes, serialized), "Corda serializes it in another way");
    }

    private static void checkTree(byte[] bytes, JsonNode expected) throws Exception {
        PartialMerkleTree tree = Corda.deserialize(PartialMerkleTree.class, bytes);
        List<SecureHash> included = List.of(hash(expected.get("includedLeaf")));
        require(tree.verify(hash(expected.get("root")), included), "the tree does not verify");
    }

    private static void checkWaitTime(byte[] bytes, JsonNode expected) throws Exception {
        WaitTimeUpdate update = Corda.deserialize(WaitTimeUpdate.class, bytes);
        requireEqual(expected.get("waitTimeSeconds").asLong(), update.getWaitTime().getSeconds(), "seconds");
        requireEqual(expected.get("nanos").asInt(), update.getWaitTime().getNano(), "nanoseconds");
    }

    private static void checkNodeInfo(byte[] bytes, JsonNode expected) throws Exception {
        NodeInfo info = Corda.deserialize(SignedNodeInfo.class, bytes).verified();
        List<String> names = new ArrayList<>();
        expected.get("legalIdentities").forEach(identity -> names.add(identity.get("name").asText()));
        List<String> found = info.getLegalIdentities().stream().map(party -> party.getName().toString()).toList();
        requireEqual(names, found, "identities");
    }

    private void checkParameters(byte[] bytes, JsonNode expected) throws Exception {
        @SuppressWarnings("unchecked")
        SignedDataWithCert<NetworkParameters> signed = Corda.deserialize(SignedDataWithCert.class, bytes);
        X509Certificate root = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(
                new ByteArrayInputStream(HexFormat.of().parseHex(manifest.at("/pki/rootCertDerHex").asText())));
        NetworkParameters parameters = NetworkMapKt.verifiedNetworkParametersCert(signed, Set.of(root));
        requireEqual(hash(expected.get("parametersHash")), signed.getRaw().getHash(), "hash");
        requireEqual(expected.get("epoch").asInt(), parameters.getEpoch(), "epoch");
    }

    private static Party party(JsonNode node) {
        PublicKey key = Crypto.decodePublicKey(HexFormat.of().parseHex(node.get("owningKeyX509Hex").asText()));
        return new Party(CordaX500Name.parse(node.get("name").asText()), key);
    }

    private static List<StateRef> states(JsonNode nodes) {
        List<StateRef> states = new ArrayList<>();
        nodes.forEach(node -> states.add(state(node)));
        return states;
    }

    private static StateRef state(JsonNode node) {
        return new StateRef(hash(node.get("txhash")), node.get("index").asInt());
    }

    private static SecureHash hash(JsonNode node) {
        return SecureHash.create(node.asText());
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }
}
