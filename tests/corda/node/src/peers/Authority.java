package peers;

import java.security.KeyPair;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.List;
import javax.security.auth.x500.X500Principal;
import kotlin.Pair;
import net.corda.core.crypto.Crypto;
import net.corda.core.crypto.SignatureScheme;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.PartyAndCertificate;
import net.corda.nodeapi.internal.KeyStoreConfigHelpersKt;
import net.corda.nodeapi.internal.config.CertificateStore;
import net.corda.nodeapi.internal.crypto.CertificateAndKeyPair;
import net.corda.nodeapi.internal.crypto.CertificateType;
import net.corda.nodeapi.internal.crypto.ContentSignerBuilder;
import net.corda.nodeapi.internal.crypto.X509KeyStore;
import net.corda.nodeapi.internal.crypto.X509Utilities;
import net.corda.nodeapi.internal.crypto.X509UtilitiesKt;
import org.bouncycastle.cert.X509v3CertificateBuilder;

/** Issues certificates as a Corda network and its nodes do, by Corda's own code; and such as they never would. */
final class Authority {
    private static final String PASSWORD = "in memory only";

    private static final Pair<Duration, Duration> USUAL = new Pair<>(Duration.ZERO, Duration.ofDays(3650));

    private final X509Certificate root;
    private final CertificateAndKeyPair intermediate;

    private Authority(X509Certificate root, CertificateAndKeyPair intermediate) {
        this.root = root;
        this.intermediate = intermediate;
    }

    /** Corda's own for development: that of the network of these tests. */
    static Authority development() {
        return new Authority(KeyStoreConfigHelpersKt.getDEV_ROOT_CA().getCertificate(),
                KeyStoreConfigHelpersKt.getDEV_INTERMEDIATE_CA());
    }

    /** That of another network, whose certificates say of themselves the same. */
    static Authority foreign() {
        X500Principal rootName = KeyStoreConfigHelpersKt.getDEV_ROOT_CA().getCertificate().getSubjectX500Principal();
        X500Principal name =
                KeyStoreConfigHelpersKt.getDEV_INTERMEDIATE_CA().getCertificate().getSubjectX500Principal();
        KeyPair rootKeys = Crypto.generateKeyPair(Crypto.ECDSA_SECP256R1_SHA256);
        X509Certificate root = X509Utilities.createSelfSignedCACertificate(rootName, rootKeys, USUAL);
        KeyPair keys = Crypto.generateKeyPair(Crypto.ECDSA_SECP256R1_SHA256);
        X509Certificate certificate = X509Utilities.createCertificate(
                CertificateType.INTERMEDIATE_CA, root, rootKeys, name, keys.getPublic(), USUAL, null, null, null);
        return new Authority(root, new CertificateAndKeyPair(certificate, keys));
    }

    /**
     * A node's identities.
     *
     * @param keys of the legal identity
     * @param tls the key store for TLS
     */
    record Identity(PartyAndCertificate certificate, KeyPair keys, CertificateStore tls) {
        CordaX500Name name() {
            return certificate.getName();
        }
    }

    Identity issue(CordaX500Name name) {
        CertificateAndKeyPair nodeCa = nodeCa(name);
        KeyPair tlsKeys = Crypto.generateKeyPair(Crypto.ECDSA_SECP256R1_SHA256);
        X509Certificate tls = X509Utilities.createCertificate(CertificateType.TLS, nodeCa.getCertificate(),
                nodeCa.getKeyPair(), name.getX500Principal(), tlsKeys.getPublic(), USUAL, null, null, null);
        return identity(name, nodeCa, tls, tlsKeys);
    }

    /** With a certificate for TLS of any kind, subject and period, which Corda's own code refuses to issue. */
    Identity issueTls(CordaX500Name name, CertificateType kind, CordaX500Name subject, Instant from, Instant until)
            throws Exception {
        CertificateAndKeyPair nodeCa = nodeCa(name);
        KeyPair keys = Crypto.generateKeyPair(Crypto.ECDSA_SECP256R1_SHA256);
        KeyPair issuer = nodeCa.getKeyPair();
        X509v3CertificateBuilder builder = X509Utilities.INSTANCE.createPartialCertificate(kind,
                nodeCa.getCertificate().getSubjectX500Principal(), issuer.getPublic(), subject.getX500Principal(),
                keys.getPublic(), new Pair<>(Date.from(from), Date.from(until)), null, null, null);
        SignatureScheme scheme = Crypto.findSignatureScheme(issuer.getPrivate());
        X509Certificate certificate = X509UtilitiesKt.toJca(builder.build(ContentSignerBuilder.INSTANCE.build(
                scheme, issuer.getPrivate(), Crypto.findProvider(scheme.getProviderName()), null, false)));
        return identity(name, nodeCa, certificate, keys);
    }

    private CertificateAndKeyPair nodeCa(CordaX500Name name) {
        return KeyStoreConfigHelpersKt.createDevNodeCa(
                intermediate, name, Crypto.generateKeyPair(Crypto.ECDSA_SECP256R1_SHA256));
    }

    private Identity identity(CordaX500Name name, CertificateAndKeyPair nodeCa, X509Certificate tls, KeyPair tlsKeys) {
        List<X509Certificate> above = List.of(nodeCa.getCertificate(), intermediate.getCertificate(), root);
        KeyPair keys = Crypto.generateKeyPair(Crypto.EDDSA_ED25519_SHA512);
        X509Certificate legal = X509Utilities.createCertificate(CertificateType.LEGAL_IDENTITY,
                nodeCa.getCertificate(), nodeCa.getKeyPair(), name.getX500Principal(), keys.getPublic(), USUAL, null,
                null, null);
        PartyAndCertificate certificate = new PartyAndCertificate(
                X509Utilities.INSTANCE.buildCertPath(legal, above));
        X509KeyStore store = new X509KeyStore(PASSWORD);
        List<X509Certificate> chain = new java.util.ArrayList<>(above);
        chain.add(0, tls);
        store.setPrivateKey(X509Utilities.CORDA_CLIENT_TLS, tlsKeys.getPrivate(), chain, PASSWORD);
        return new Identity(certificate, keys, CertificateStore.Companion.of(store, PASSWORD, PASSWORD));
    }

    /** What a node of this network trusts. */
    CertificateStore trust() {
        X509KeyStore store = new X509KeyStore(PASSWORD);
        store.setCertificate(X509Utilities.CORDA_ROOT_CA, root);
        return CertificateStore.Companion.of(store, PASSWORD, PASSWORD);
    }

    X509Certificate root() {
        return root;
    }

    /** A key store with nothing in it. */
    static CertificateStore nothing() {
        return CertificateStore.Companion.of(new X509KeyStore(PASSWORD), PASSWORD, PASSWORD);
    }
}
