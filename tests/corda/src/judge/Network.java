package judge;

import static judge.Verdicts.require;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import net.corda.core.crypto.CryptoUtils;
import net.corda.core.crypto.SecureHash;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.identity.PartyAndCertificate;
import net.corda.core.internal.SignedDataWithCert;
import net.corda.core.node.NetworkParameters;
import net.corda.core.node.NodeInfo;
import net.corda.core.node.NotaryInfo;
import net.corda.nodeapi.internal.SignedNodeInfo;
import net.corda.nodeapi.internal.crypto.X509Utilities;
import net.corda.nodeapi.internal.network.NetworkMapKt;

/**
 * The network that `notary init` made, as a node sees it: parsed and verified up to the root by Corda's own code.
 *
 * @param parametersHash what transactions name their network parameters by
 * @param notary the one notary that some node of this network serves
 */
public record Network(NetworkParameters parameters, SecureHash parametersHash, Party notary, List<NodeInfo> nodes) {

    static Network read(Path directory) throws IOException, GeneralSecurityException {
        X509Certificate root = X509Utilities.loadCertificateFromPEMFile(directory.resolve("root.pem"));

        @SuppressWarnings("unchecked")
        SignedDataWithCert<NetworkParameters> signed = Corda.deserialize(
                SignedDataWithCert.class, Files.readAllBytes(directory.resolve("network-parameters")));
        NetworkParameters parameters = NetworkMapKt.verifiedNetworkParametersCert(signed, Set.of(root));

        List<NodeInfo> nodes = readNodes(directory.resolve("node-infos"), root);
        List<Party> served = parameters.getNotaries().stream().map(NotaryInfo::getIdentity)
                .filter(party -> nodes.stream().anyMatch(node -> advertises(node, party.getOwningKey()))).toList();
        require(served.size() == 1, "%d of the listed notaries are served by a node, not one", served.size());
        return new Network(parameters, signed.getRaw().getHash(), served.get(0), nodes);
    }

    /** The signed node infos of a folder, verified. */
    public static List<NodeInfo> readNodes(Path directory, X509Certificate root)
            throws IOException, GeneralSecurityException {
        List<Path> files;
        try (Stream<Path> entries = Files.list(directory)) {
            // A node reads no other names.
            files = entries.filter(file -> file.getFileName().toString().startsWith("nodeInfo-")).sorted().toList();
        }
        List<NodeInfo> nodes = new ArrayList<>();
        for (Path file : files) {
            NodeInfo node = Corda.deserialize(SignedNodeInfo.class, Files.readAllBytes(file)).verified();
            for (PartyAndCertificate identity : node.getLegalIdentitiesAndCerts()) {
                // Also checks the roles of the certificates against each other.
                identity.verify(new TrustAnchor(root, null));
            }
            nodes.add(node);
        }
        return List.copyOf(nodes);
    }

    /** The party of the node that has this legal name; a node drops a message from anybody else. */
    public Party nodeNamed(CordaX500Name name) {
        return nodes.stream().map(node -> node.getLegalIdentities().get(0))
                .filter(party -> party.getName().equals(name)).findFirst()
                .orElseThrow(() -> new AssertionError("no node is named " + name));
    }

    /** Whether the named node is a worker of the notary. */
    public boolean isWorker(Party party) {
        return nodes.stream().anyMatch(node -> node.getLegalIdentities().get(0).equals(party)
                && advertises(node, notary.getOwningKey()));
    }

    /** A notary of the parameters other than the one that is judged: one to change to. */
    Party otherNotary() {
        return parameters.getNotaries().stream().map(NotaryInfo::getIdentity)
                .filter(party -> !party.equals(notary)).findFirst()
                .orElseThrow(() -> new AssertionError("the network parameters list one notary only"));
    }

    public static boolean advertises(NodeInfo node, PublicKey key) {
        return node.getLegalIdentities().stream().anyMatch(party -> party.getOwningKey().equals(key));
    }

    /** Where a party's messages arrive, on the receiving side. */
    public static String inbox(Party party) {
        return "p2p.inbound." + CryptoUtils.toStringShort(party.getOwningKey());
    }
}
