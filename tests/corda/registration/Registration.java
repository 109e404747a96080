package registration;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import javax.security.auth.x500.X500Principal;
import kotlin.Unit;
import net.corda.core.crypto.Crypto;
import net.corda.core.identity.CordaX500Name;
import net.corda.core.identity.Party;
import net.corda.core.internal.CertRole;
import net.corda.core.node.NodeInfo;
import net.corda.core.serialization.SerializationContext;
import net.corda.core.serialization.SerializationFactory;
import net.corda.core.serialization.internal.SerializationEnvironment;
import net.corda.core.serialization.internal.SerializationEnvironmentKt;
import net.corda.core.utilities.ByteSequence;
import net.corda.node.NodeRegistrationOption;
import net.corda.node.VersionInfo;
import net.corda.node.services.config.NetworkServicesConfig;
import net.corda.node.utilities.registration.HTTPNetworkRegistrationService;
import net.corda.node.utilities.registration.NodeRegistrationConfiguration;
import net.corda.node.utilities.registration.NodeRegistrationHelper;
import net.corda.node.utilities.registration.NotaryServiceConfig;
import net.corda.nodeapi.internal.SignedNodeInfo;
import net.corda.nodeapi.internal.config.FileBasedCertificateStoreSupplier;
import net.corda.nodeapi.internal.config.SslConfiguration;
import net.corda.nodeapi.internal.crypto.CertificateType;
import net.corda.nodeapi.internal.crypto.X509Utilities;
import net.corda.nodeapi.internal.cryptoservice.bouncycastle.BCCryptoService;
import net.corda.nodeapi.internal.serialization.amqp.AMQPServerSerializationScheme;
import net.corda.serialization.internal.SerializationFactoryImpl;
import net.corda.serialization.internal.SharedContexts;
import org.bouncycastle.asn1.ASN1Integer;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.Attribute;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequest;

/** Corda's own code on either side of registration. */
public final class Registration {
    private static final String PASSWORD = "cordacadevpass";
    private static final ASN1ObjectIdentifier ROLE = new ASN1ObjectIdentifier("1.3.6.1.4.1.50530.1.1");
    private static final ASN1ObjectIdentifier EMAIL = new ASN1ObjectIdentifier("1.2.840.113549.1.9.1");

    private Registration() {}

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "register" -> register(new URL(arguments[1]), Path.of(arguments[2]), Path.of(arguments[3]));
            case "manage" -> manage(Path.of(arguments[1]));
            case "believe" -> believe(Path.of(arguments[1]), Path.of(arguments[2]));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static X509Certificate certificate(Path pem) throws Exception {
        try (InputStream in = Files.newInputStream(pem)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    /** A notary worker's node registers with the manager at `url`: Corda's client, of which the service identity comes first. */
    private static void register(URL url, Path rootPem, Path dir) throws Exception {
        Files.createDirectories(dir);
        Path rootStore = dir.resolve("network-root-truststore.jks");
        KeyStore root = KeyStore.getInstance("JKS");
        root.load(null, null);
        root.setCertificateEntry("cordarootca", certificate(rootPem));
        try (var out = Files.newOutputStream(rootStore)) {
            root.store(out, PASSWORD.toCharArray());
        }
        CordaX500Name own = CordaX500Name.parse("O=Notary Worker 1,L=Zurich,C=CH");
        CordaX500Name service = CordaX500Name.parse("O=Notary Service,L=Zurich,C=CH");
        var signing = store(dir, "nodekeystore.jks");
        var ssl = SslConfiguration.Companion.mutual(store(dir, "sslkeystore.jks"), store(dir, "truststore.jks"));
        var crypto = new BCCryptoService(own.getX500Principal(), signing, null);
        var configuration = new NodeRegistrationConfiguration(ssl, own, null, null, dir, "ops@bank.example", crypto,
                signing.get(true), new NotaryServiceConfig(X509Utilities.DISTRIBUTED_NOTARY_KEY_ALIAS, service));
        var services = new NetworkServicesConfig(url, url, null, false, null);
        var http = new HTTPNetworkRegistrationService(services, new VersionInfo(12, "4.10", "test", "test"),
                new URL(url + "/certificate"));
        var helper = new NodeRegistrationHelper(configuration, http, new NodeRegistrationOption(rootStore, PASSWORD),
                idle -> null, line -> Unit.INSTANCE, line -> {
                    System.out.println(line);
                    return Unit.INSTANCE;
                });
        // The legal identity, which the node makes by itself below its CA, is left out: Corda 4.10 verifies it by the Ed25519 that Java
        // has since 15, which does not take the keys of Corda's library.
        helper.generateKeysAndRegister();
        for (String alias : List.of("distributed-notary-private-key", "cordaclientca")) {
            var chain = signing.get(false).getValue().getCertificateChain(alias);
            System.out.println(alias + ": " + CertRole.Companion.extract(chain.get(0)) + ", " + chain.size());
        }
        System.out.println("registered");
    }

    private static FileBasedCertificateStoreSupplier store(Path dir, String name) {
        return new FileBasedCertificateStoreSupplier(dir.resolve(name), PASSWORD, PASSWORD);
    }

    private record Issued(byte[] zip) {}

    /** An identity manager that reads requests and makes certificates by Corda's code. Prints its address; ends with its input. */
    private static void manage(Path rootPem) throws Exception {
        KeyPair rootKey = Crypto.generateKeyPair(X509Utilities.INSTANCE.getDEFAULT_TLS_SIGNATURE_SCHEME());
        var rootName = new X500Principal("CN=Test Root,O=Test,L=London,C=GB");
        X509Certificate root = X509Utilities.createSelfSignedCACertificate(rootName, rootKey,
                X509Utilities.INSTANCE.getDEFAULT_VALIDITY_WINDOW());
        KeyPair key = Crypto.generateKeyPair(X509Utilities.INSTANCE.getDEFAULT_TLS_SIGNATURE_SCHEME());
        X509Certificate identityCa = X509Utilities.createCertificate(CertificateType.INTERMEDIATE_CA, root, rootKey,
                new X500Principal("CN=Test Identity,O=Test,L=London,C=GB"), key.getPublic(),
                X509Utilities.INSTANCE.getDEFAULT_VALIDITY_WINDOW(), null, null, null);
        X509Utilities.saveCertificateAsPEMFile(root, rootPem);
        Map<String, Issued> issued = new ConcurrentHashMap<>();
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/certificate", exchange -> {
            try (exchange) {
                if (exchange.getRequestMethod().equals("POST")) {
                    String id = submitted(exchange, identityCa, key, root, issued);
                    answer(exchange, 200, id.getBytes());
                } else {
                    String path = exchange.getRequestURI().getPath();
                    Issued found = issued.get(path.substring(path.lastIndexOf('/') + 1));
                    answer(exchange, found == null ? 404 : 200, found == null ? new byte[0] : found.zip());
                }
            } catch (Exception error) {
                System.out.println("refused: " + error);
                throw new IOException(error);
            }
        });
        server.start();
        System.out.println("http://127.0.0.1:" + server.getAddress().getPort());
        while (System.in.read() >= 0) {
            // Until whoever started this ends.
        }
        server.stop(0);
    }

    private static void answer(HttpExchange exchange, int status, byte[] body) throws IOException {
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
    }

    private static String submitted(HttpExchange exchange, X509Certificate identityCa, KeyPair key, X509Certificate root,
            Map<String, Issued> issued) throws Exception {
        byte[] der = exchange.getRequestBody().readAllBytes();
        var request = new JcaPKCS10CertificationRequest(der);
        if (!request.isSignatureValid(new JcaContentVerifierProviderBuilder().build(request.getPublicKey()))) {
            throw new IllegalArgumentException("signature");
        }
        if (!java.util.Arrays.equals(request.getEncoded(), der) || !java.util.Arrays.equals(
                request.toASN1Structure().getEncoded("DER"), der)) {
            throw new IllegalArgumentException("not DER");
        }
        CordaX500Name name = CordaX500Name.parse(request.getSubject().toString());
        Attribute[] role = request.getAttributes(ROLE);
        Attribute[] email = request.getAttributes(EMAIL);
        CertRole asked = CertRole.Companion.getInstance((ASN1Integer) role[0].getAttributeValues()[0]);
        CertificateType type = asked == CertRole.SERVICE_IDENTITY ? CertificateType.SERVICE_IDENTITY : CertificateType.NODE_CA;
        // As the development mode's: a node CA may issue for its own name only.
        var constraints = type != CertificateType.NODE_CA ? null : new org.bouncycastle.asn1.x509.NameConstraints(
                new org.bouncycastle.asn1.x509.GeneralSubtree[] {new org.bouncycastle.asn1.x509.GeneralSubtree(
                        new org.bouncycastle.asn1.x509.GeneralName(org.bouncycastle.asn1.x500.X500Name.getInstance(
                                name.getX500Principal().getEncoded())))}, null);
        X509Certificate certificate = X509Utilities.createCertificate(type, identityCa, key, name.getX500Principal(),
                Crypto.toSupportedPublicKey(request.getPublicKey()), X509Utilities.INSTANCE.getDEFAULT_VALIDITY_WINDOW(),
                constraints, null, null);
        var bytes = new ByteArrayOutputStream();
        try (var zip = new ZipOutputStream(bytes)) {
            for (X509Certificate part : List.of(certificate, identityCa, root)) {
                zip.putNextEntry(new ZipEntry(part.getSerialNumber() + ".cer"));
                zip.write(part.getEncoded());
                zip.closeEntry();
            }
        }
        String id = Integer.toString(issued.size());
        issued.put(id, new Issued(bytes.toByteArray()));
        System.out.println("issued: " + name + ", " + asked + ", "
                + email[0].getAttributeValues()[0] + ", " + exchange.getRequestHeaders().getFirst("Platform-Version"));
        return id;
    }

    /** What a node does with a node info from its network map: signatures, and every identity's path up to the root. */
    private static void believe(Path rootPem, Path nodeInfo) throws Exception {
        SerializationFactoryImpl factory = new SerializationFactoryImpl();
        factory.registerScheme(new AMQPServerSerializationScheme(List.of()));
        SerializationContext p2p = SharedContexts.getAMQP_P2P_CONTEXT();
        SerializationEnvironmentKt.setNodeSerializationEnv(
                SerializationEnvironment.Companion.with(factory, p2p, p2p, null, null, null, null));
        byte[] bytes = Files.readAllBytes(nodeInfo);
        NodeInfo info = SerializationFactory.Companion.getDefaultFactory()
                .deserialize(ByteSequence.of(bytes), SignedNodeInfo.class, p2p).verified();
        var root = certificate(rootPem);
        for (var identity : info.getLegalIdentitiesAndCerts()) {
            identity.verify(Set.of(new java.security.cert.TrustAnchor(root, null)));
        }
        // What Corda's tool for network parameters takes the notary from.
        Party notary = info.getLegalIdentities().get(info.getLegalIdentities().size() - 1);
        System.out.println("notary: " + notary.getName() + " at " + info.getAddresses());
    }
}
