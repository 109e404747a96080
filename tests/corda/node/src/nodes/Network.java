package nodes;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import net.corda.nodeapi.internal.network.CopyCordapps;
import net.corda.nodeapi.internal.network.NetworkBootstrapper;
import net.corda.nodeapi.internal.network.NetworkParametersOverrides;

/** A development network as Corda's own bootstrapper makes it: a folder for each node. */
public final class Network {
    public static final String NOTARY = "O=Notary Service,L=Zurich,C=CH";
    static final String OTHER_NOTARY = "O=Other Notary,L=Zurich,C=CH";

    /** The name and password of who may start flows. */
    static final String RPC_USER = "judge";

    static final String RPC_PASSWORD = "only on loopback";

    /** A laden machine is forgiven a lot; on two idle cores a node is done within 15 s. */
    private static final int GENERATE_SECONDS = 300;

    /**
     * How long the first of a client's attempts may take: by default it is 30 s, and the tests would wait for it. The
     * next one may take {@link #BACKOFF} times as long, and so on.
     */
    static final int FLOW_TIMEOUT_SECONDS = 6;

    private static final String BACKOFF = "1.2";

    /** Of each node: for peers, for RPC, for RPC's administration. */
    private static final int PORTS_PER_NODE = 3;

    private static final String DATABASE = "persistence.mv.db";

    private final Path directory;

    public Network(Path directory) {
        this.directory = directory;
    }

    /** Makes it with two parties, `workers` of one notary service, and a notary that is a single node. */
    static void make(Path directory, int workers, Path cordapp, Path nodeArguments) throws IOException {
        Files.createDirectories(directory);
        Files.copy(cordapp, directory.resolve(cordapp.getFileName()));
        List<String> files = new ArrayList<>();
        int port = Ports.free((workers + 3) * PORTS_PER_NODE);
        write(directory, "alice", "O=Alice Corp,L=Madrid,C=ES", port, "");
        port += PORTS_PER_NODE;
        write(directory, "bob", "O=Bob Plc,L=Rome,C=IT", port, "");
        for (int worker = 1; worker <= workers; worker++) {
            port += PORTS_PER_NODE;
            write(directory, worker(worker), "O=Notary Worker " + worker + ",L=Zurich,C=CH", port,
                    "notary { validating = false, serviceLegalName = \"" + NOTARY + "\" }\n");
        }
        port += PORTS_PER_NODE;
        write(directory, "other-notary", OTHER_NOTARY, port, "notary { validating = false }\n");
        // The bootstrapper copies the node's own jar into every folder and starts that; here nodes start otherwise.
        Path noJar = Files.createTempFile("corda", ".jar");
        try {
            java.net.URL empty = noJar.toUri().toURL();
            NetworkBootstrapper bootstrapper = new NetworkBootstrapper(
                    true, () -> empty, folders -> nodeInfos(folders, nodeArguments),
                    net.corda.nodeapi.internal.ContractsJarFile::new);
            bootstrapper.bootstrap(
                    directory, CopyCordapps.Yes, new NetworkParametersOverrides(null, null, null, null, null));
        } finally {
            Files.delete(noJar);
        }
    }

    public static String worker(int number) {
        return "worker-" + number;
    }

    private static void write(Path directory, String folder, String name, int port, String more) throws IOException {
        String configuration = """
                myLegalName = "%s"
                p2pAddress = "127.0.0.1:%d"
                rpcSettings { address = "127.0.0.1:%d", adminAddress = "127.0.0.1:%d" }
                rpcUsers = [{ user = "%s", password = "%s", permissions = [ALL] }]
                devMode = true
                devModeOptions { disableCheckpointChecker = true }
                detectPublicIp = false
                flowTimeout { timeout = %d seconds, maxRestartCount = 6, backoffBase = %s }
                %s""".formatted(
                name, port, port + 1, port + 2, RPC_USER, RPC_PASSWORD, FLOW_TIMEOUT_SECONDS, BACKOFF, more);
        Files.writeString(directory.resolve(folder + "_node.conf"), configuration);
    }

    /** What the bootstrapper does with its jar: the node makes its database, its keys and its signed node-info. */
    private static List<Path> nodeInfos(List<? extends Path> folders, Path nodeArguments) {
        // All databases are alike, and making one takes longer than all the rest: one is made, and copied.
        Path first = folders.get(0);
        run(first, nodeArguments, "schemas", "run-migration-scripts", "--core-schemas", "--app-schemas");
        for (Path folder : folders.subList(1, folders.size())) {
            copy(first.resolve(DATABASE), folder.resolve(DATABASE));
        }
        return folders.parallelStream().map(folder -> {
            run(folder, nodeArguments, "node-info", "generate-node-info");
            try (Stream<Path> files = Files.list(folder)) {
                return files.filter(file -> file.getFileName().toString().startsWith("nodeInfo-")).findFirst()
                        .orElseThrow(() -> new IllegalStateException("no node-info in " + folder));
            } catch (IOException e) {
                throw new java.io.UncheckedIOException(e);
            }
        }).toList();
    }

    private static void copy(Path from, Path to) {
        try {
            Files.copy(from, to);
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    private static void run(Path folder, Path nodeArguments, String what, String... command) {
        List<String> line = new ArrayList<>(Child.java(nodeArguments));
        line.addAll(List.of(command));
        Path log = folder.resolve(what + ".log");
        try {
            Process process = new ProcessBuilder(line).directory(folder.toFile()).redirectErrorStream(true)
                    .redirectOutput(log.toFile()).start();
            boolean ended = process.waitFor(GENERATE_SECONDS, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly();
            }
            if (!ended || process.exitValue() != 0) {
                throw new IllegalStateException(what + " failed:\n" + Files.readString(log));
            }
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the maker", e);
        }
    }

    public Path folder(String node) {
        return directory.resolve(node);
    }

    /** The port of a node's configuration: `p2pAddress` or `rpcSettings.address`. */
    int port(String node, String key) {
        Config configuration = ConfigFactory.parseFile(folder(node).resolve("node.conf").toFile());
        String address = configuration.getString(key);
        return Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    }

    public int p2pPort(String node) {
        return port(node, "p2pAddress");
    }

    int rpcPort(String node) {
        return port(node, "rpcSettings.address");
    }

    /** Whether no port of any node is taken. */
    boolean isFree() throws IOException {
        try (Stream<Path> folders = Files.list(directory)) {
            return folders.filter(folder -> Files.exists(folder.resolve("node.conf"))).allMatch(folder -> {
                int first = p2pPort(folder.getFileName().toString());
                return Stream.iterate(first, port -> port + 1).limit(PORTS_PER_NODE).allMatch(Ports::isFree);
            });
        }
    }
}
