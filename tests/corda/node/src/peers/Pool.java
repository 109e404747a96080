package peers;

import static judge.Verdicts.require;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import judge.Corda;
import net.corda.core.crypto.Crypto;
import net.corda.core.crypto.DigitalSignature;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.internal.SignedDataWithCert;
import net.corda.core.node.NetworkParameters;
import net.corda.core.node.NodeInfo;
import net.corda.core.serialization.SerializedBytes;
import net.corda.core.utilities.NetworkHostAndPort;
import net.corda.nodeapi.internal.SignedNodeInfo;
import net.corda.nodeapi.internal.network.NetworkMapKt;

/** The workers of one notary service, as their peers know them from the network map. */
final class Pool {
    /** A worker: its own legal identity, and where its node info says that it is. */
    record Worker(int number, Party party, NetworkHostAndPort address) {}

    final Authority authority = Authority.development();
    final judge.Network network;
    final List<Worker> workers;
    private final List<Path> folders;

    /** Of a network that Corda's bootstrapper made. */
    Pool(nodes.Network made, int count) throws IOException, GeneralSecurityException {
        folders = IntStream.rangeClosed(1, count).mapToObj(n -> made.folder(nodes.Network.worker(n))).toList();
        Path folder = folders.get(0);
        @SuppressWarnings("unchecked")
        SignedDataWithCert<NetworkParameters> signed = Corda.deserialize(
                SignedDataWithCert.class, Files.readAllBytes(folder.resolve("network-parameters")));
        NetworkParameters parameters =
                NetworkMapKt.verifiedNetworkParametersCert(signed, Set.of(authority.root()));
        CordaX500Name service = CordaX500Name.parse(nodes.Network.NOTARY);
        Party notary = parameters.getNotaries().stream().map(listed -> listed.getIdentity())
                .filter(party -> party.getName().equals(service)).findFirst()
                .orElseThrow(() -> new AssertionError(service + " is not in the network parameters"));
        List<NodeInfo> nodes = judge.Network.readNodes(folder.resolve("additional-node-infos"), authority.root());
        network = new judge.Network(parameters, signed.getRaw().getHash(), notary, nodes);
        List<NodeInfo> serving =
                nodes.stream().filter(node -> judge.Network.advertises(node, notary.getOwningKey())).toList();
        require(serving.size() == count, "%d nodes serve, not %d", serving.size(), count);
        workers = IntStream.rangeClosed(1, count).mapToObj(n -> worker(n, made, serving)).toList();
    }

    private static Worker worker(int number, nodes.Network made, List<NodeInfo> serving) {
        int port = made.p2pPort(nodes.Network.worker(number));
        NodeInfo node = serving.stream().filter(info -> info.getAddresses().get(0).getPort() == port).findFirst()
                .orElseThrow(() -> new AssertionError("no node info has the port of worker " + number));
        return new Worker(number, node.getLegalIdentities().get(0), node.getAddresses().get(0));
    }

    Party notary() {
        return network.notary();
    }

    /** Publishes who is where, signed as a node does it, to every worker. */
    void publish(Authority.Identity identity, int port) throws IOException {
        NodeInfo info = new NodeInfo(List.of(new NetworkHostAndPort("127.0.0.1", port)),
                List.of(identity.certificate()), judge.Transactions.PLATFORM_VERSION, System.currentTimeMillis());
        SerializedBytes<NodeInfo> raw = Corda.serialize(info);
        byte[] signature;
        try {
            signature = Crypto.doSign(identity.keys().getPrivate(), raw.getBytes());
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("an own key signs", e);
        }
        SignedNodeInfo signed = new SignedNodeInfo(raw, List.of(new DigitalSignature(signature)));
        byte[] bytes = Corda.serialize(signed).getBytes();
        for (Path folder : folders) {
            Path infos = folder.resolve("additional-node-infos");
            // As nodes do it: nobody sees half of a file.
            Path file = infos.resolve("nodeInfo-" + raw.getHash());
            Path written = Files.write(folder.resolve("node-info.new"), bytes);
            Files.move(written, file, java.nio.file.StandardCopyOption.ATOMIC_MOVE);
        }
    }
}
