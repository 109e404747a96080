package judge;

import static judge.Verdicts.require;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.PrivateKey;
import net.corda.core.crypto.Crypto;
import net.corda.core.identity.Party;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.openssl.PEMParser;

/**
 * A party of the development network that the judge speaks for.
 *
 * @param password its password at the worker's endpoint; the user is its legal name
 */
record Member(Party party, KeyPair keys, String password) {
    /** Reads a folder that `notary init` made for a party, and finds out from the network whose key lies in it. */
    static Member read(Path directory, Network network) throws IOException, GeneralSecurityException {
        PrivateKey key = readKey(directory.resolve("identity.p8"));
        byte[] probe = "whose key is this?".getBytes(java.nio.charset.StandardCharsets.UTF_8);
        byte[] signature = Crypto.doSign(key, probe);
        Party owner = network.nodes().stream().map(node -> node.getLegalIdentities().get(0))
                .filter(party -> verifies(party, signature, probe)).findFirst()
                .orElseThrow(() -> new AssertionError("no node has the key of " + directory));
        String password = Files.readString(directory.resolve("sasl-secret")).strip();
        return new Member(owner, new KeyPair(owner.getOwningKey(), key), password);
    }

    private static boolean verifies(Party party, byte[] signature, byte[] signed) {
        try {
            return Crypto.isValid(party.getOwningKey(), signature, signed);
        } catch (GeneralSecurityException | IllegalArgumentException e) {
            // A signature of another scheme.
            return false;
        }
    }

    private static PrivateKey readKey(Path file) throws IOException {
        try (Reader text = Files.newBufferedReader(file); PEMParser parser = new PEMParser(text)) {
            Object object = parser.readObject();
            require(object instanceof PrivateKeyInfo, "%s is not a plain PKCS#8 key in PEM", file);
            return Crypto.decodePrivateKey(((PrivateKeyInfo) object).getEncoded());
        }
    }
}
